"""ordered_map and unordered_map: bounded, and a worker that dies costs one item."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from pickle import PicklingError

import pytest

from builders.workers import WorkerDiedError, Workers, ordered_map, unordered_map


def square(number: int) -> int:
    return number * number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def raise_at_two(number: int) -> int:
    if number == 2:
        raise ValueError("two")
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def slow_first(number: int) -> int:
    time.sleep(0.2 if number == 0 else 0)
    return number


def first_waits_for_third(item: tuple[int, Path]) -> int:
    number, file = item
    while number == 0 and not file.exists():
        time.sleep(0.01)
    if number == 2:
        file.touch()
    return number


@pytest.mark.parametrize("n_workers", [0, 2])
def test_results_come_in_order(n_workers):
    assert list(ordered_map(square, range(20), n_workers, ahead=4)) == [number * number for number in range(20)]


def test_a_slow_item_does_not_change_the_order():
    assert list(ordered_map(slow_first, range(8), 2, ahead=4)) == list(range(8))


def test_results_come_as_soon_as_they_are_there(tmp_path):
    items = [(number, tmp_path / "third") for number in range(4)]
    results = [result for _, result in unordered_map(first_waits_for_third, items, 2)]
    assert sorted(results) == [0, 1, 2, 3]
    assert results[0] == 1
    assert list(unordered_map(square, [], 2)) == []


def test_one_of_several_dies_or_fails_and_the_others_go_on_or_end():
    results = dict(unordered_map(die_at_three, range(8), 2))
    assert isinstance(results.pop(3), WorkerDiedError)
    assert results == {number: number for number in (0, 1, 2, 4, 5, 6, 7)}
    with pytest.raises(ValueError, match="two"):
        list(unordered_map(raise_at_two, range(8), 2))


def test_a_dying_worker_costs_its_own_item_only():
    results = list(ordered_map(die_at_three, range(8), 2, ahead=6))
    assert isinstance(results[3], WorkerDiedError)
    assert [result for place, result in enumerate(results) if place != 3] == [0, 1, 2, 4, 5, 6, 7]


def test_workers_that_never_live_end_with_a_reason():
    with pytest.raises(RuntimeError, match="worker processes die as soon as they start"):
        list(ordered_map(die, range(100), 2, ahead=4))


def two_megabytes(number: int) -> bytes:
    return bytes([number % 256]) * (2 << 20)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("seed", range(3))
def test_kills_from_outside_at_random_moments_cost_nothing(seed):
    """Results are large, so that many a kill comes in the middle of a message."""
    rng, is_over = random.Random(seed), threading.Event()
    n_killed = 0

    def kill_now_and_then():
        nonlocal n_killed
        while not is_over.wait(rng.uniform(0.05, 0.3)):
            workers = [pid for pid in processes() if parent_of(pid) == os.getpid() and is_spawned(pid)]
            if workers and n_killed < 6:
                os.kill(rng.choice(workers), signal.SIGKILL)
                n_killed += 1

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    n_lost = 0
    for number, result in enumerate(ordered_map(two_megabytes, range(400), 2, ahead=8)):
        time.sleep(0.002)
        if isinstance(result, WorkerDiedError):
            n_lost += 1  # three kills hit the same item: possible, if unlikely
        else:
            assert result == two_megabytes(number)
    is_over.set()
    killer.join()
    assert n_killed
    assert n_lost <= n_killed // 3


def unpicklable(number: int) -> object:
    return (lambda: number) if number == 1 else number


def test_a_result_that_cannot_be_sent_is_an_error_and_not_a_hang():
    results = ordered_map(unpicklable, range(3), 2, ahead=4)
    assert next(results) == 0
    with pytest.raises(RuntimeError, match="cannot be sent to the parent"):
        next(results)


def test_an_item_that_cannot_be_sent_is_an_error_and_not_a_hang():
    workers = Workers(square, 1)
    good, bad = workers.submit(3), workers.submit(lambda: 0)
    assert workers.result(good) == 9
    with pytest.raises((AttributeError, PicklingError)):
        workers.result(bad)
    assert workers.result(workers.submit(4)) == 16
    workers.close()


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_exception_is_raised_where_its_item_stands(n_workers):
    results = ordered_map(raise_at_two, range(5), n_workers, ahead=4)
    assert next(results) == 0
    assert next(results) == 1
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_no_more_than_ahead_items_are_taken_early():
    taken: list[int] = []

    def numbers():
        for number in range(100):
            taken.append(number)
            yield number

    results = ordered_map(square, numbers(), 2, ahead=5)
    next(results)
    assert len(taken) <= 6
    results.close()


SLOW_CONSUMER = """
import time
from builders.workers import ordered_map


def same(number):
    return number


if __name__ == "__main__":
    for number in ordered_map(same, range(10_000), 2, ahead=4):
        print(number, flush=True)
        time.sleep(0.2)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(tmp_path, how):
    script = tmp_path / "consumer.py"
    script.write_text(SLOW_CONSUMER)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(3):
            assert process.stdout.readline()
        children = [pid for pid in processes() if parent_of(pid) == process.pid]
        assert len(children) >= 2
        process.send_signal(how)
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in children):
        assert time.monotonic() < deadline, f"still alive: {children}"
        time.sleep(0.05)


def processes():
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def state_and_parent(pid):
    """The third and fourth field of /proc/PID/stat, https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0"]


def parent_of(pid):
    return int(state_and_parent(pid)[1])


def is_alive(pid):
    return state_and_parent(pid)[0] not in "XZ"


def is_spawned(pid):
    """Whether this is a worker, and not the resource tracker, another child of ours."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
