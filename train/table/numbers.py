"""How numbers of the table are written, and the two metrics that it holds."""

from train.statistics.interval import Interval

# The field's name, what it is called, the unit of a difference, digits.
METRICS = (("accuracy", "accuracy", "points", 2), ("macro_f1", "macro-F1", "", 4))


def plus_minus(value: float, sd: float | None, digits: int) -> str:
    """`70.59 ± 0.31`; the mean alone where there is no standard deviation."""
    return f"{value:.{digits}f}" if sd is None else f"{value:.{digits}f} ± {sd:.{digits}f}"


def span(interval: Interval | None, digits: int, sign: str = "") -> str:
    """`69.02 to 72.11`; a dash for None. `sign` is + where differences are shown."""
    return "–" if interval is None else signed(f"{interval.low:{sign}.{digits}f} to {interval.high:{sign}.{digits}f}")


def signed(number: str) -> str:
    """`number` with the minus sign, which is as wide as a plus."""
    return number.replace("-", "−")


def p_text(p_value: float) -> str:
    """A p-value, never as 0.000."""
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"
