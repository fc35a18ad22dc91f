"""`build` holds no row in memory that it does not write just then."""

import subprocess
import sys
from pathlib import Path

import pytest

from builders.bench.scripted_run import write_scripted_run
from builders.files import sha256_of
from builders.index import write_index
from builders.schema import IndexRow, image_id_of

BUILD = """if __name__ == "__main__":
    import sys
    from pathlib import Path
    import builders.scratch
    builders.scratch.CACHE_BYTES = 4 * 1024**2
    from builders.build import BuildConfig, build
    root = Path(sys.argv[1])
    build(BuildConfig(images=root / "photos", runs=(root / "run",), out=root / "out"))
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_kb(root: Path, n_rows: int) -> int:
    """The greatest memory of a build of so many rows, each with 80 words; photographs are some bytes."""
    rows: list[IndexRow] = []
    for number in range(n_rows):
        path = f"{'train' if number % 5 else 'test'}/class {number % 23}/{number}.png"
        photograph = root / "photos" / path
        photograph.parent.mkdir(parents=True, exist_ok=True)
        photograph.write_bytes(str(number).encode())
        split, label, _ = path.split("/")
        rows.append(IndexRow(image_id_of(path), sha256_of(photograph), path, split, label, 10, 10, 10, "PNG", "ok", ""))
    write_index(root / "index.parquet", rows)
    write_scripted_run(root / "run", root / "index.parquet")
    done = subprocess.run([sys.executable, "-c", BUILD, str(root)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its memory from /proc")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Both are more than a row group of 5,000. Rows held as objects took 2.4 KB each: 94 MB for the difference."""
    few, many = (peak_kb(tmp_path / str(n_rows), n_rows) for n_rows in (10_000, 50_000))
    assert many - few < 32 * 1024, (few, many)
