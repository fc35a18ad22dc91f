"""A built dataset folder changed in one place, and the faults that `check` finds in it."""

import base64
import shutil
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from builders.check import check_dataset
from builders.dataset_folder import write_checksums
from builders.files import read_json, write_json
from builders.shards import write_shards
from dataset_card.check_card import check_card


def faults(folder, images=None, with_card=False):
    return check_dataset(folder, images, check_card if with_card else None).faults


def found(folder, contract, *words, images=None):
    """The faults of one contract in whose text all the words stand."""
    every = [each for each in faults(folder, images, contract == "card") if each.contract == contract]
    return [
        each
        for each in every
        if all(word in f"{each.file}, {each.place}: {each.seen} / {each.allowed}" for word in words)
    ]


def shards_of(folder, set_name="tiny-doctor", split="train"):
    return sorted((folder / set_name).glob(f"{split}-*.parquet"))


def change_rows(folder, change, set_name="tiny-doctor"):
    """Write all shards of a set again, from rows that went through `change`, which gets and gives {split: rows}."""
    schema = pq.read_schema(shards_of(folder, set_name)[0])
    features = datasets.Features.from_arrow_schema(schema).to_dict()
    rows: dict[str, list[dict[str, Any]]] = {
        split: [row for shard in shards_of(folder, set_name, split) for row in pq.read_table(shard).to_pylist()]
        for split in ("train", "test")
    }
    shutil.rmtree(folder / set_name)
    (folder / set_name).mkdir()
    for split, changed in change(rows).items():
        write_shards(folder / set_name, split, changed, features, 10**9)
    write_checksums(folder)


def change_shard(shard, change):
    """Write one shard again, from a table that went through `change`, with all that a shard of ours has."""
    table = change(pq.read_table(shard))
    features = datasets.Features.from_arrow_schema(table.schema).to_dict()
    split = shard.name.partition("-")[0]
    write_shards(shard.parent, f"{split}x", table.to_pylist(), features, 10**9)
    next(shard.parent.glob(f"{split}x-*")).replace(shard)
    write_checksums(shard.parents[1])


def change_json(file, change):
    value = read_json(file)
    change(value)
    write_json(file, value)
    write_checksums(file.parents[1] if file.parent.name == "provenance" else file.parent)


def change_text(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    write_checksums(file.parent)


def write_odd_integers(file):
    """A Parquet file with integers of 33 bits: what Arrow raises is neither an OSError nor a ValueError."""
    table = pa.table({"n": pa.array([1], pa.int32())})
    pq.write_table(table, file)
    schema = table.schema.serialize().to_pybytes()
    told, damaged = (base64.b64encode(each) for each in (schema, schema.replace(b"\x20\0\0\0", b"\x21\0\0\0")))
    assert told in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(told, damaged))
