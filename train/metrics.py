"""Accuracy and macro-F1, equal to scikit-learn's; the two numbers of every table."""

import numpy as np
import numpy.typing as npt


def accuracy(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> float:
    """The share of rows predicted as labelled, in [0, 1]."""
    return float(np.mean(labels == predicted))


def macro_f1(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> float:
    """The unweighted mean of the classes' F1, in [0, 1].

    As `sklearn.metrics.f1_score(average="macro")`: over the classes that occur in `labels` or in `predicted`. A class
    that is never predicted right counts as 0; one that occurs in neither does not count.
    """
    n_classes = int(max(labels.max(), predicted.max())) + 1
    n_labelled = np.bincount(labels, minlength=n_classes)
    n_predicted = np.bincount(predicted, minlength=n_classes)
    n_right = np.bincount(labels[labels == predicted], minlength=n_classes)
    occurs = n_labelled + n_predicted > 0
    return float(np.mean(2 * n_right[occurs] / (n_labelled + n_predicted)[occurs]))
