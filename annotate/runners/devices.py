"""Which part of the machine each engine gets: its GPUs, or its share of the cores, as environment variables."""

import os
import shutil
import subprocess

from builders.errors import UserError


def environments(engine: str, n_engines: int, gpus_per_engine: int) -> list[dict[str, str]]:
    """One set of variables per engine. Raises `UserError` where there are fewer GPUs than the engines need.

    On GPUs each engine sees only its own and one OpenMP thread: several engines with a thread per core each are slower
    than one (vLLM pull request 24519). On a CPU the cores are dealt out; one engine alone is left to itself.
    """
    if engine in ("openai", "scripted"):
        return [{} for _ in range(n_engines)]
    gpus = visible_gpus()
    if gpus:
        if n_engines * gpus_per_engine > len(gpus):
            raise UserError(
                f"--data-parallel {n_engines} with {gpus_per_engine} GPUs each needs {n_engines * gpus_per_engine};"
                f" {len(gpus)} are visible: {', '.join(gpus)}",
                f"--data-parallel {max(1, len(gpus) // gpus_per_engine)}",
            )
        return [
            {
                "CUDA_VISIBLE_DEVICES": ",".join(gpus[number * gpus_per_engine : (number + 1) * gpus_per_engine]),
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            }
            for number in range(n_engines)
        ]
    if n_engines == 1:
        return [{}]
    cores = sorted(os.sched_getaffinity(0))
    if n_engines > len(cores):
        raise UserError(
            f"--data-parallel {n_engines}: here are {len(cores)} cores and no GPU", f"--data-parallel {len(cores)}"
        )
    shares = [cores[number::n_engines] for number in range(n_engines)]
    return [
        {
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, share)),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(len(share))),
        }
        for share in shares
    ]


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that a process here may use: those of CUDA_VISIBLE_DEVICES, else all that the driver lists."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu.strip() for gpu in chosen.split(",") if gpu.strip() not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    names = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(names))] if listed.returncode == 0 else []
