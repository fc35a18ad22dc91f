"""An experiment's table computed: means, intervals, and each row against another on the same images and seeds."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import numpy.typing as npt

from train.metrics import accuracy, macro_f1
from train.origin import read_origin
from train.statistics.bootstrap import Resampled, Resamples, draw_groups, draw_seeds, interval, resample
from train.statistics.interval import t_interval
from train.statistics.paired import holm, mcnemar_exact, plurality
from train.table.predictions import Predicted, Tested, read_predictions
from train.table.published import BASELINE, PUBLISHED, parent_of, title_of
from train.table.rows import Comparison, Delta, Row, Score, Table


def experiment_table(folder: Path) -> Table:
    """The table of an experiment folder: numbers from `predictions/*.parquet`, names from `config.json`.

    Raises `UserError` where there are no predictions.
    """
    origin = read_origin(folder)
    protocols = read_predictions(folder)
    judged = {protocol: _judge(tested) for protocol, tested in protocols.items()}
    present = {model for tested in protocols.values() for model in tested.models}
    rows: list[Row] = []
    for model in _in_order(present):
        _, *published = PUBLISHED.get(model, (model, None, None))
        ours = {protocol: found[0][model] for protocol, found in judged.items() if model in found[0]}
        against = {protocol: found[1][model] for protocol, found in judged.items() if model in found[1]}
        over_control = {protocol: found[2][model] for protocol, found in judged.items() if model in found[2]}
        title = title_of(model, origin)
        rows.append(Row(model, title, published[0], published[1], ours, against, over_control))
    return Table(tuple(rows), tuple(protocols), origin)


def table_json(table: Table) -> str:
    """`Table.as_json` as indented text."""
    return json.dumps(table.as_json(), indent=2, ensure_ascii=False)


def _in_order(present: set[str]) -> list[str]:
    """The paper's rows, then other models, then controls, each model's together."""
    others = sorted(model for model in present - set(PUBLISHED) if parent_of(model) is None)
    return [*PUBLISHED, *others, *sorted(model for model in present if parent_of(model) is not None)]


Judged = tuple[dict[str, Score], dict[str, Comparison], dict[str, Comparison]]


def _judge(tested: Tested) -> Judged:
    """By model: its score; how much better than the baseline it is; how much better than a control its model is."""
    drawn = draw_groups(tested.groups)
    resampled = {model: resample(tested.labels, each.answers, drawn) for model, each in tested.models.items()}
    scores = {model: _score(tested, drawn, each, resampled[model]) for model, each in tested.models.items()}
    models = [model for model in tested.models if parent_of(model) is None and model != BASELINE]
    controls = [(model, parent) for model in tested.models if (parent := parent_of(model)) is not None]

    def family(pairs: list[tuple[str, str, str]]) -> dict[str, Comparison]:
        found = {model: _compare(tested, drawn, resampled, first, second) for model, first, second in pairs}
        return _corrected({model: each for model, each in found.items() if each is not None})

    against_baseline = {
        **family([(model, model, BASELINE) for model in models]),
        **family([(model, model, BASELINE) for model, _ in controls]),
    }
    return scores, against_baseline, family([(model, parent, model) for model, parent in controls])


def _score(tested: Tested, drawn: Resamples, predicted: Predicted, resampled: Resampled) -> Score:
    accuracies = [100 * accuracy(tested.labels, answers) for answers in predicted.answers]
    macro_f1s = [macro_f1(tested.labels, answers) for answers in predicted.answers]
    n_seeds = len(predicted.seeds)
    weights = draw_seeds(n_seeds)
    return Score(
        accuracy_mean=mean(accuracies),
        accuracy_sd=stdev(accuracies) if n_seeds > 1 else None,
        macro_f1_mean=mean(macro_f1s),
        macro_f1_sd=stdev(macro_f1s) if n_seeds > 1 else None,
        n_seeds=n_seeds,
        n_test=len(tested.labels),
        n_groups=drawn.counts.shape[1],
        accuracy_over_seeds=t_interval(accuracies, 0, 100),
        accuracy_bootstrap=interval(100 * resampled.accuracy, weights, 0, 100),
        macro_f1_over_seeds=t_interval(macro_f1s, 0, 1),
        macro_f1_bootstrap=interval(resampled.macro_f1, weights, 0, 1),
    )


def _compare(
    tested: Tested, drawn: Resamples, resampled: dict[str, Resampled], first: str, second: str
) -> Comparison | None:
    """`first` minus `second` over the seeds that both have; None where they share none or one is absent."""
    if first not in tested.models or second not in tested.models:
        return None
    seeds = tuple(seed for seed in tested.models[first].seeds if seed in tested.models[second].seeds)
    if not seeds:
        return None
    answers = [tested.models[model].of(seeds) for model in (first, second)]
    places = [[tested.models[model].seeds.index(seed) for seed in seeds] for model in (first, second)]
    weights = draw_seeds(len(seeds))
    deltas: dict[str, Delta] = {}
    for name, unit, metric in (("accuracy", 100, accuracy), ("macro_f1", 1, macro_f1)):
        ones, others = ([unit * metric(tested.labels, answer) for answer in model] for model in answers)
        drawn_ones, drawn_others = (
            unit * getattr(resampled[model], name)[:, place]
            for model, place in zip((first, second), places, strict=True)
        )
        between = interval(drawn_ones - drawn_others, weights, -unit, unit)
        deltas[name] = Delta(mean(ones) - mean(others), between.low, between.high)
    n_first, n_second = _only_right(tested, drawn, answers)
    p_value = mcnemar_exact(n_first, n_second)
    return Comparison(second, len(seeds), deltas["accuracy"], deltas["macro_f1"], n_first, n_second, p_value, p_value)


def _only_right(tested: Tested, drawn: Resamples, answers: list[npt.NDArray[np.int64]]) -> tuple[int, int]:
    """How many images only one of two models gets right, by the plurality of its seeds; one image of each group."""
    firsts = np.unique(drawn.group_of, return_index=True)[1]
    one, other = (np.asarray(plurality(each[:, firsts].tolist())) == tested.labels[firsts] for each in answers)
    return int((one & ~other).sum()), int((other & ~one).sum())


def _corrected(family: dict[str, Comparison]) -> dict[str, Comparison]:
    corrected = holm([each.p_value for each in family.values()])
    return {model: replace(each, p_holm=p) for (model, each), p in zip(family.items(), corrected, strict=True)}
