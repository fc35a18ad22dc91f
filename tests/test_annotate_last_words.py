"""What an engine's own processes died of, found in what they printed."""

import pytest

from annotate.runners.last_words import cause_of, fix_of

POINTS = "Engine core initialization failed. See root cause above. Failed core proc(s): {}"
PREFIX = "(Worker pid=7) ERROR 11-26 17:13:43 [multiproc_executor.py:1063]"
PRINTED = f"""Loading safetensors checkpoint shards: 100% Completed
{PREFIX} WorkerProc hit an exception.
{PREFIX} Traceback (most recent call last):
{PREFIX}   File "worker.py", line 219, in determine_available_memory
{PREFIX}     raise ValueError(
{PREFIX} ValueError: Free memory on device (11.8/79.2 GiB) is less than desired GPU memory utilization (0.99).
(EngineCore pid=6) ERROR 11-26 17:13:43 [core.py:1510] RuntimeError: Worker failed, check the stack trace above
RuntimeError: {POINTS}
"""


def test_an_exception_that_points_at_another_process_gives_way_to_what_that_one_said_first():
    cause = cause_of("RuntimeError", POINTS, PRINTED)
    assert cause == (
        "ValueError: Free memory on device (11.8/79.2 GiB) is less than desired GPU memory utilization (0.99)."
    )
    assert "--engine-arg gpu_memory_utilization=0.8" in fix_of(cause, "runs/x/logs")
    dead = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    printed = f"{PREFIX} torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.\n"
    assert cause_of("EngineDeadError", dead, printed).startswith("OutOfMemoryError: CUDA out of memory")


@pytest.mark.parametrize(
    ("kind", "message", "printed"),
    [("RuntimeError", POINTS, "nothing of use"), ("ValueError", "boom", PRINTED), ("KeyError", "", "")],
)
def test_an_exception_that_speaks_for_itself_is_kept(kind, message, printed):
    assert cause_of(kind, message, printed) == f"{kind}: {message}".strip()
    assert fix_of("ValueError: boom", "runs/x/logs") == "read runs/x/logs"
