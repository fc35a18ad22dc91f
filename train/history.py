"""What a fit tells of its epochs, and which of them is the best."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over train gave: mean loss there; loss, accuracy and macro-F1 on validation."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_macro_f1: float

    @property
    def rank(self) -> tuple[float, float]:
        """Greater is better: macro-F1 on validation, and of equals the lower loss."""
        return self.validation_macro_f1, -self.validation_loss


@dataclass(frozen=True, slots=True)
class Fitted:
    """The history of a fit and the epoch whose weights the model now holds.

    `n_trained` parameters were changed; a batch was computed in `accumulate` parts in the end.
    """

    history: tuple[Epoch, ...]
    best: Epoch
    n_trained: int
    accumulate: int


def best_of(history: list[Epoch]) -> Epoch:
    """The best epoch; of equals the first."""
    return max(history, key=lambda epoch: epoch.rank)


def is_exhausted(history: list[Epoch], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought nothing better; never without a patience."""
    return patience is not None and bool(history) and history[-1].epoch - best_of(history).epoch >= patience
