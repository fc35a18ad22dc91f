"""What is still to ask, and in whose company: images that were in an engine when it died are asked again in halves."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import islice

from annotate.asks import Ask

DEADLY = 2  # so many engines died of an image, the last of them with nothing else in it: it is not asked again


class Work:
    """The asks of one pass, dealt to engines. Pure bookkeeping: no process, no clock.

    An engine that dies gives back what it held. What had not reached the engine itself is innocent. The rest are
    suspects: they are asked again in two halves, each half alone in an engine, and halves of that if it dies once more.
    So an image that kills is alone in the end, and is quarantined; all others are answered.
    """

    def __init__(self, asks: Iterable[Ask]) -> None:
        self._fresh: Iterator[Ask] = iter(asks)
        self._next: list[Ask] = list(islice(self._fresh, 1))
        self._again: deque[Ask] = deque()
        self._groups: deque[list[Ask]] = deque()
        self._alone: set[int] = set()  # engines that work on one group of suspects and get nothing else
        self._deaths: Counter[str] = Counter()

    def is_empty(self) -> bool:
        """Whether everything was dealt. What engines hold may still come back."""
        return not (self._next or self._again or self._groups)

    def deal(self, engine: int, n_held: int, room: int) -> list[Ask]:
        """Up to `room` asks for this engine, which holds `n_held`. A group of suspects waits for an empty engine."""
        if n_held == 0:
            self._alone.discard(engine)
            if self._groups:
                self._alone.add(engine)
                return self._groups.popleft()
        if engine in self._alone:
            return []
        dealt: list[Ask] = []
        while len(dealt) < room and (self._again or self._next):
            dealt.append(self._again.popleft() if self._again else self._pop_next())
        return dealt

    def died(self, engine: int, held: Iterable[Ask], taken: Iterable[str]) -> list[Ask]:
        """Take back what the engine held when it died; the asks that must not be tried again."""
        self._alone.discard(engine)
        in_engine = set(taken)
        held = list(held)
        suspects = [ask for ask in held if ask.key in in_engine]
        self._again.extendleft(reversed([ask for ask in held if ask.key not in in_engine]))
        self._deaths.update(ask.key for ask in suspects)
        if len(suspects) == 1:
            if self._deaths[suspects[0].key] >= DEADLY:
                return suspects
            self._groups.appendleft(suspects)
        elif suspects:
            half = (len(suspects) + 1) // 2
            self._groups.extendleft([suspects[half:], suspects[:half]])
        return []

    def _pop_next(self) -> Ask:
        ask = self._next.pop()
        self._next.extend(islice(self._fresh, 1))
        return ask
