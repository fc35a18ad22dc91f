"""The runs of one protocol by model, and the one model whose details are shown: chosen on validation, never on test."""

from dataclasses import dataclass
from statistics import mean, stdev

from builders.foreign_text import visible
from train.metrics import macro_f1
from train.report.runs import FinishedRun

PROTOCOLS = ("official", "clean")


@dataclass(frozen=True, slots=True)
class Group:
    """A protocol's runs by model, in the order of the table; `chosen` is the model with the details, `why` says why."""

    protocol: str
    models: dict[str, list[FinishedRun]]
    titles: dict[str, str]
    chosen: str
    why: str

    def title_of(self, model: str) -> str:
        """A model's name for readers, with its control where it is one."""
        base, _, control = model.partition("+")
        title = self.titles.get(model) or self.titles.get(base) or base
        return visible(f"{title} + {control}" if control and model not in self.titles else title)

    @property
    def chosen_runs(self) -> list[FinishedRun]:
        """The runs of the chosen model, one per seed."""
        return self.models[self.chosen]


def groups_of(runs: list[FinishedRun], titles: dict[str, str]) -> list[Group]:
    """One group per protocol that has runs, official first."""
    groups: list[Group] = []
    names = sorted({run.protocol for run in runs}, key=lambda name: (name not in PROTOCOLS, name != "official", name))
    for protocol in names:
        order = [*titles, *sorted({run.model for run in runs} - set(titles))]
        models = {
            model: found
            for model in order
            if (found := [run for run in runs if run.protocol == protocol and run.model == model])
        }
        candidates = [model for model, found in models.items() if not found[0].is_control] or list(models)
        scores = {model: _validation_score(models[model]) for model in candidates}
        known = {model: score for model, score in scores.items() if score is not None}
        if known:
            chosen = max(known, key=lambda model: known[model])
            why = f"the highest macro-F1 on validation, {known[chosen]:.3f} (mean over seeds)"
        else:
            chosen, why = candidates[-1], "no validation scores are here; the last row of the table"
        groups.append(Group(protocol, models, titles, chosen, why))
    return groups


def _validation_score(runs: list[FinishedRun]) -> float | None:
    """Mean macro-F1 on validation; None where a run lacks it."""
    scores: list[float] = []
    for run in runs:
        if run.validation is not None:
            scores.append(macro_f1(run.validation.labels, run.validation.predicted))
        elif "best" in run.record:
            scores.append(run.record["best"]["validation_macro_f1"])
        else:
            return None
    return mean(scores)


def plus_minus(values: list[float], digits: int) -> str:
    """Mean ± standard deviation over seeds; the value alone where there is one seed."""
    if not values:
        return "–"
    shown = f"{mean(values):.{digits}f}"
    return shown if len(values) == 1 else f"{shown} ± {stdev(values):.{digits}f}"
