"""The paired test of two classifiers on the same images: votes of seeds, McNemar's exact p-value, Holm's correction."""

from collections.abc import Sequence


def mcnemar_exact(n_only_first: int, n_only_second: int) -> float:
    """The two-sided p-value that two classifiers are right equally often, from the images that only one gets right.

    Under it each such image falls to either side like a coin: `min(1, 2 · P(Binomial(n, 1/2) <= the smaller))`, in
    whole numbers. McNemar 1947, Psychometrika 12(2); the exact form: Dietterich 1998, section 3.1, Neural
    Computation 10(7).
    """
    n, smaller = n_only_first + n_only_second, min(n_only_first, n_only_second)
    ways, total = 1, 1
    for k in range(smaller):
        ways = ways * (n - k) // (k + 1)
        total += ways
    return min(1.0, 2 * total / 2**n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value as corrected for all: below 0.05 it may be believed beside the others.

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2).
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def plurality(votes: Sequence[Sequence[int]]) -> list[int]:
    """What most seeds predict for each image; of equals, what the first of their seeds predicts.

    `votes` holds one row per seed. So several seeds make one classifier, and every image is one trial of the test.
    """
    answers: list[int] = []
    for image in zip(*votes, strict=True):
        times = [image.count(vote) for vote in image]
        answers.append(image[times.index(max(times))])
    return answers
