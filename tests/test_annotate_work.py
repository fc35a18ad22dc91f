"""The bookkeeping of annotate against simple models: what engines are dealt, and what a run folder keeps."""

import math
import random
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.asks import Ask, Asking
from annotate.describe import Describer
from annotate.engines import Answer
from annotate.parts import PartWriter
from annotate.runners.work import Work
from annotate.seen import Retry, read_seen, texts_of
from builders.run_folder import one_per_image, part_files, read_part
from builders.schema import IndexRow, image_id_of

SEEDS = st.integers(0, 2**32)
FLAGS = frozenset({"empty"})


class Engines:
    """Engines that hold, take and answer what `Work` deals them, and die of it; keeps count of what became of each."""

    def __init__(self, n_asks, n_engines, window):
        self.keys = [f"{number:03d}" for number in range(n_asks)]
        self.work = Work(Ask(key, "") for key in self.keys)
        self.window = window
        self.held = [{} for _ in range(n_engines)]
        self.taken = [set() for _ in range(n_engines)]
        self.answered, self.quarantined, self.deaths = [], [], []

    def is_done(self):
        return self.work.is_empty() and not any(self.held)

    def deal(self, number):
        held = self.held[number]
        dealt = self.work.deal(number, len(held), self.window - len(held)) if len(held) < self.window else []
        known = {*self.answered, *self.quarantined, *(key for each in self.held for key in each)}
        assert known.isdisjoint(ask.key for ask in dealt)  # never in two engines, never after it was settled
        assert len({ask.key for ask in dealt}) == len(dealt)
        held.update((ask.key, ask) for ask in dealt)

    def take(self, number, key):
        self.taken[number].add(key)

    def answer(self, number, key):
        self.taken[number].discard(key)
        del self.held[number][key]
        self.answered.append(key)

    def die(self, number):
        self.deaths.append(frozenset(self.taken[number]))
        dead = self.work.died(number, self.held[number].values(), self.taken[number])
        for ask in dead:
            assert self.taken[number] == {ask.key}  # nothing else was in it
            assert sum(ask.key in taken for taken in self.deaths) >= 2
        self.quarantined += [ask.key for ask in dead]
        self.held[number], self.taken[number] = {}, set()

    def check_that_all_is_settled_once(self):
        assert sorted(self.answered + self.quarantined) == self.keys
        assert self.work.is_empty()


@settings(max_examples=300, deadline=None)
@given(
    n_asks=st.integers(0, 70),
    n_killers=st.integers(0, 8),
    n_engines=st.integers(1, 4),
    window=st.integers(1, 40),
    seed=SEEDS,
)
def test_images_that_kill_are_quarantined_and_no_others_within_a_bound_of_deaths(
    n_asks, n_killers, n_engines, window, seed
):
    chance = random.Random(seed)
    engines = Engines(n_asks, n_engines, window)
    killers = set(chance.sample(engines.keys, min(n_killers, n_asks)))
    while not engines.is_done():
        number = chance.randrange(n_engines)
        held, taken = engines.held[number], engines.taken[number]
        waiting, safe = sorted(held.keys() - taken), sorted(taken - killers)
        act = chance.choice(["deal", "take", "take", "answer", "die"])
        if act == "deal":
            engines.deal(number)
        elif act == "take":
            for key in chance.sample(waiting, chance.randint(0, len(waiting))):
                engines.take(number, key)
        elif act == "answer" and safe:
            engines.answer(number, chance.choice(safe))
        elif act == "die" and taken & killers:
            engines.die(number)
    engines.check_that_all_is_settled_once()
    assert set(engines.quarantined) == killers
    # Deaths form trees: after one, each half is an engine's only work, and a half with a killer in it ends in another.
    # Every branch ends with a quarantine, and is no longer than halving takes; of one suspect two engines die.
    most = max((len(taken) for taken in engines.deaths), default=0)
    assert len(engines.deaths) <= len(killers) * (1 + max(1, math.ceil(math.log2(max(1, most)))))


@settings(max_examples=100, deadline=None)
@given(n_asks=st.integers(0, 40), n_engines=st.integers(1, 3), window=st.integers(1, 20), seed=SEEDS)
def test_whatever_engines_die_of_every_ask_is_settled_once(n_asks, n_engines, window, seed):
    chance = random.Random(seed)
    engines = Engines(n_asks, n_engines, window)
    while not engines.is_done():
        number = chance.randrange(n_engines)
        act = chance.choice(["deal", "take", "answer", "answer", "die"])
        if act == "deal":
            engines.deal(number)
        elif act == "take" and engines.held[number]:
            engines.take(number, chance.choice(sorted(engines.held[number])))
        elif act == "answer" and engines.taken[number]:
            engines.answer(number, chance.choice(sorted(engines.taken[number])))
        elif act == "die" and chance.random() < 0.5:
            engines.die(number)
    engines.check_that_all_is_settled_once()


def test_what_had_not_reached_the_engine_is_asked_first_and_is_no_suspect():
    work = Work(Ask(str(number), "") for number in range(8))
    held = work.deal(0, 0, 4)
    assert work.died(0, held, taken=[]) == []
    assert [ask.key for ask in work.deal(0, 0, 5)] == ["0", "1", "2", "3", "4"]


def test_suspects_are_asked_in_halves_and_alone():
    work = Work(Ask(str(number), "") for number in range(9))
    held = work.deal(0, 0, 6)
    work.died(0, held, taken=["0", "1", "2", "3", "4"])
    assert [ask.key for ask in work.deal(0, 0, 6)] == ["0", "1", "2"]
    assert work.deal(0, 3, 3) == []  # nothing else, while they are in it
    assert [ask.key for ask in work.deal(1, 0, 6)] == ["3", "4"]  # another engine that is empty may help
    assert [ask.key for ask in work.deal(0, 0, 6)] == ["5", "6", "7", "8"]


@dataclass(frozen=True)
class Kept:
    """What the model knows of one image: `n_asked` answers are in it, of which the text is of retry `text_of`."""

    n_asked: int = 0
    is_answered: bool = False
    is_flagged: bool = False
    retries: int = 0
    text_of: int = 0

    def next_ask(self, n_retries):
        """The retry number that must be asked for; None where nothing is to ask."""
        if not self.is_answered:
            return 0
        return self.retries + 1 if self.is_flagged and self.retries < n_retries else None

    def after(self, outcome, retry):
        """The same image one answer later."""
        later = replace(self, n_asked=self.n_asked + 1, retries=retry)
        if outcome == "fails" or (outcome == "flagged" and retry > 0):
            return later  # without a text, or with the one before
        return replace(later, is_answered=True, is_flagged=outcome == "flagged", text_of=retry)


def text_of(key, is_flagged, retry):
    return "." * (retry + 1) if is_flagged else f"An answer about {key} at retry {retry}."


def groups_of(n_images, n_copies):
    """Index rows by key; the first image has copies."""
    groups = {}
    for number in range(n_images):
        key = f"{number:064x}"
        paths = [f"{number}-{copy}.jpg" for copy in range(n_copies if number == 0 else 1)]
        groups[key] = [IndexRow(image_id_of(path), key, path, "", "", 1, 1, 1, "JPEG", "ok", "") for path in paths]
    return groups


def describer_of(run, groups, retry):
    seen = read_seen(run)
    again = {row.image_sha256 for row in seen.values() if row.status == "ok" and retry.wants(row.flags, row.retries)}
    asking = Asking("", temperature=0.0, seed=0)
    return Describer(groups, seen, texts_of(run, again), retry, asking, "", frozenset(), schema=None)


def wait_for_part_writers():
    """Until what the writers that nobody holds any more had begun to write is on disk."""
    for thread in threading.enumerate():
        if thread.name.startswith("part-writer"):
            thread.join()


def answer_of(key, outcome, retry):
    if outcome == "fails":
        return Answer(key, error="out of luck")
    return Answer(key, text_of(key, outcome == "flagged", retry), "stop")


@settings(max_examples=40, deadline=None)
@given(
    n_images=st.integers(1, 5),
    n_copies=st.integers(1, 3),
    n_retries=st.integers(0, 3),
    part_rows=st.integers(1, 5),
    n_kills=st.integers(0, 4),
    seed=SEEDS,
)
def test_a_run_folder_keeps_what_was_written_asks_for_the_rest_and_counts_one_row_per_image(
    n_images, n_copies, n_retries, part_rows, n_kills, seed
):
    chance = random.Random(seed)
    groups, retry = groups_of(n_images, n_copies), Retry(FLAGS, n_retries)
    on_disk = dict.fromkeys(groups, Kept())
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        for session in range(n_kills + 1):
            is_calm = session == n_kills
            writer = PartWriter(run, part_rows, part_seconds=10**6)
            describer = describer_of(run, groups, retry)
            now, failed, n_unwritten = dict(on_disk), set(), 0
            n_left = None if is_calm else chance.randint(0, 3 * n_images)  # answers until the kill
            while n_left != 0:
                expected = {key: now[key].next_ask(n_retries) for key in groups if key not in failed}
                asks = describer.to_ask()
                assert {key: ask.retry for key, ask in asks.items()} == {
                    key: number for key, number in expected.items() if number is not None
                }
                if not asks:
                    break
                for key in chance.sample(sorted(asks), len(asks)):  # engines answer in any order
                    outcome = "is fine" if is_calm else chance.choice(["is fine", "flagged", "flagged", "fails"])
                    rows = describer.rows(answer_of(key, outcome, asks[key].retry), asks[key], "scripted")
                    now[key] = now[key].after(outcome, asks[key].retry)
                    failed |= {key} if not now[key].is_answered else set()
                    writer.add(rows)
                    n_unwritten += len(rows)
                    if n_unwritten >= part_rows:
                        on_disk, n_unwritten = dict(now), 0
                    elif chance.random() < 0.2:
                        writer.flush()
                        on_disk, n_unwritten = dict(now), 0
                    n_left = n_left and n_left - 1
                    if n_left == 0:
                        break
            if is_calm:
                writer.close()
                on_disk = now
            else:
                del writer  # not closed: what was not flushed is lost, as in a kill
                wait_for_part_writers()

        rows = [row for part in part_files(run) for row in read_part(part)]
        counting = one_per_image(rows)
        assert set(counting) == {row.image_id for copies in groups.values() for row in copies}
        for key, copies in groups.items():
            for row in (counting[copy.image_id] for copy in copies):
                kept = on_disk[key]
                assert row.status == "ok"
                assert row.description == text_of(key, kept.is_flagged, kept.text_of)
                assert row.flags == (("empty",) if kept.is_flagged else ())
                assert (row.attempt, row.retries) == (kept.n_asked, kept.retries)
                assert row.retries <= n_retries
                assert row.temperature == round(min(1.0, 0.3 * kept.text_of), 3)
                assert kept.next_ask(n_retries) is None
        assert list(run.rglob(".*")) == []
