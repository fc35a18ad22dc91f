"""A comparison of large sets reads them batch by batch."""

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from builders.features import dataset_features
from builders.files import write_json
from builders.schema import image_id_of
from builders.shards import write_shards


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its memory from /proc")
def test_20000_pairs_take_little_memory(tmp_path):
    """48 MB of texts, of which a batch of 2,000 rows per set is held at a time."""
    phrases = (
        "a red, scaly plaque",
        "well-defined borders",
        "on the back of the hand",
        "no crusting",
        "several papules",
    )
    for set_name in ("a", "b"):
        rows = []
        for number in range(20_000):
            dice = random.Random(f"{set_name} {number}")
            path = f"train/class {number % 23}/{number}.jpg"
            text = ", ".join(dice.choices(phrases, k=60))
            facts = {
                "image_id": image_id_of(path),
                "image_sha256": hashlib.sha256(path.encode()).hexdigest(),
                "path": path,
            }
            counts = dict.fromkeys(("n_image_tokens", "n_prompt_tokens", "n_output_tokens", "n_tiles"), 1)
            splits = {"split_official": "train", "split_clean": "train", "in_balanced_subset": False}
            said = {
                "description": text,
                "finish_reason": "stop",
                "temperature": 0.0,
                "flags": [],
                "duplicate_group": "",
            }
            rows.append({**facts, **counts, **splits, **said, "label": number % 23})
        rows.sort(key=lambda row: row["image_id"])
        (tmp_path / set_name).mkdir()
        features = dataset_features([f"class {number}" for number in range(23)], with_images=False)
        write_shards(tmp_path / set_name, "train", rows, features, 500_000_000)
        facts = {"with_images": False, "rows": {"n_rows": 20_000}}
        provenance = {"is_primary": set_name == "a", "run": {}, "summary": None, "build": facts}
        write_json(tmp_path / "provenance" / f"{set_name}.json", provenance)
    del rows
    code = """if __name__ == "__main__":
        import sys
        from pathlib import Path
        from dataset_card.compare.compare import CompareConfig, compare
        compare(CompareConfig(dataset=sys.argv[1], set_a="a", set_b="b"))
        print(*[line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")])"""
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    peak_kib = int(result.stdout.split()[1])  # not ru_maxrss, which begins with the memory of whoever forked
    assert peak_kib < 400 * 1024  # of which some 165 MB are pyarrow, datasets and numpy
