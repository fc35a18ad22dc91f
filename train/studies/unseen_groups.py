"""The official split's models on those of its test images whose group they have not seen: no training of its own."""

import numpy as np

from train.config import TrainConfig
from train.data import load_examples, split_of
from train.metrics import accuracy, macro_f1
from train.statistics.bootstrap import draw_groups, draw_seeds, interval, resample
from train.table.numbers import span
from train.table.predictions import read_predictions


def on_unseen_groups(config: TrainConfig, of: str) -> list[str]:
    """Markdown lines, the first one empty: accuracy in %, macro-F1 in [0, 1], both 95 % intervals; means over seeds.

    A test image counts whose group (`of` names it in the singular) has no image in train or validation. Nothing where
    every image counts, or none.
    """
    examples = load_examples(config)
    tested, split = read_predictions(config.out)["official"], split_of(examples, "official")
    seen = {examples.groups[row] for row in (*split.train, *split.validation)}
    rows = np.flatnonzero([group not in seen for group in tested.groups])
    if len(rows) in (0, len(tested.groups)):
        return []
    groups, labels = [tested.groups[row] for row in rows], tested.labels[rows]
    drawn = draw_groups(groups)
    lines = [
        "",
        f"The same models on the {len(rows):,} test images whose {of} is in neither train nor validation:",
        "",
        "| model | acc. | 95 % | F1 | 95 % |",
        "| :--- | ---: | ---: | ---: | ---: |",
    ]
    for model, said in tested.models.items():
        answers = said.answers[:, rows]
        resampled, seeds = resample(labels, answers, drawn), draw_seeds(len(said.seeds))
        right = 100 * np.mean([accuracy(labels, each) for each in answers])
        f1 = np.mean([macro_f1(labels, each) for each in answers])
        of_right = span(interval(100 * resampled.accuracy, seeds, 0, 100), 2)
        lines.append(
            f"| {model} | {right:.2f} | {of_right} | {f1:.4f} | {span(interval(resampled.macro_f1, seeds, 0, 1), 4)} |"
        )
    return lines
