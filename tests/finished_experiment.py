"""What the tests of report share: an experiment folder with random logits, and its report read as a page."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from builders.build import BuildConfig, build
from builders.files import write_json, write_table
from train.data import Examples
from train.evaluate import PIXELS, logits_table

NASTY_TEXT = (
    '</style></p><script>window.ran = 1</script><img src=x onerror="window.ran = 2">\u202egnol\u202c & \x07 red'
)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The page's tables by caption as lists of rows of text, its ids and addresses; unbalanced tags fail."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.ids, self.addresses, self.tags, self.open = {}, [], [], [], []
        self.caption, self.text = None, ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[name] for name in ("src", "href", "action", "srcset") if name in found]
        assert not [name for name in found if name.startswith("on") or name == "style"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.row = []
        if tag in ("th", "td", "caption"):
            self.text = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "caption":
            self.rows = self.tables.setdefault(self.text.strip(), [])
            self.rows.append([])
        if tag in ("th", "td"):
            self.row.append(self.text.strip())
        if tag == "tr":
            self.rows[-1].append(self.row)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, text):
        self.text += text


def rows_of(dataset):
    """The rows of a dataset's shards, with labels by name, in the order of their ids."""
    shards = sorted((dataset / "tiny-doctor").glob("*.parquet"))
    names = json.loads(pq.read_schema(shards[0]).metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    return names, sorted(rows, key=lambda row: row["image_id"])


def fake_examples(names, labels, ids, texts):
    return Examples(
        image_ids=ids,
        image_sha256s=ids,
        labels=np.asarray(labels),
        class_names=tuple(names),
        texts=texts,
        groups=[str(i // 2) for i in range(len(ids))],
        splits={},
        read_image=None,
        n_without_text=0,
    )


def write_run(folder, name, examples, rng, both=True, attention=False):
    """The files of one finished run, with random logits."""
    n, n_classes = len(examples.image_ids), len(examples.class_names)
    rows = np.arange(n)

    def drawn(sharpness):
        logits = rng.normal(size=(n, n_classes)) * 2
        logits[rows, examples.labels] += sharpness
        return logits.astype(np.float32)

    write_table(folder / "validation" / f"{name}.parquet", logits_table(examples, rows, drawn(2.0)))
    write_table(folder / "predictions" / f"{name}.parquet", logits_table(examples, rows, drawn(1.5)))
    if both:
        tables = [
            logits_table(examples, rows, drawn(sharpness)).append_column("missing", pa.array([kind] * n))
            for kind, sharpness in (("text", 1.0), ("image", 0.2))
        ]
        write_table(folder / "missing" / f"{name}.parquet", pa.concat_tables(tables))
    if attention:
        write_attention(folder, name, examples, rng)
    history = [
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "validation_loss": 2.5 / epoch,
            "validation_accuracy": 0.5,
            "validation_macro_f1": 1 - 1 / epoch,
        }
        for epoch in range(1, 6)
    ]
    model, protocol, seed = name.rsplit("-", 2)
    training = {"model": model, "protocol": protocol, "seed": int(seed), "seconds": 1.5, "history": history}
    training |= {"best": history[-1], "n_train": 100, "n_validation": n}
    write_json(folder / "models" / name / "config.json", {"class_names": examples.class_names, "training": training})


def write_attention(folder, name, examples, rng):
    pixels = {"resize": "exact", "resize_px": [16, 16], "crop_px": [16, 16], "resample": 2, "rescale_factor": 1 / 255}
    pixels |= {"mean": [0, 0, 0], "std": [1, 1, 1]}
    rows, tests = [], []
    for i, text in enumerate(examples.texts):
        spans = [(found.start(), found.end()) for found in re.finditer(r"\S+", text)]
        rows.append(
            {
                "image_id": examples.image_ids[i],
                "is_sampled": True,
                "patch_rows": 4,
                "patch_columns": 4,
                "patch_weights": rng.dirichlet(np.ones(16)).tolist(),
                "class_token_weight": 0.1,
                "text": text,
                "word_starts": [start for start, _ in spans],
                "word_ends": [end for _, end in spans],
                "word_weights": rng.dirichlet(np.ones(len(spans))).tolist(),
                "n_words_read": len(spans),
                "special_token_weight": 0.0,
            }
        )
        tests += [
            {
                "image_id": examples.image_ids[i],
                "group": examples.groups[i],
                "modality": modality,
                "percent": percent,
                "before": 0.8,
                "without_top": 0.8 - percent / 100 - 0.01 * rng.random(),
                "without_random": 0.8 - percent / 400,
            }
            for modality, percents in (("image", (5, 10, 20, 40)), ("text", (5, 10, 20, 40)), ("photograph", (10, 40)))
            for percent in percents
        ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({PIXELS: json.dumps(pixels)})
    write_table(folder / "attention" / f"{name}.parquet", table)
    write_table(folder / "deletion" / f"{name}.parquet", pa.Table.from_pylist(tests))


def write_experiment(tmp_path, photographs, make_run):
    """Three models, two protocols, two seeds over a real dataset of 26 photographs whose texts are nasty."""
    described = make_run(text=lambda row: NASTY_TEXT)
    dataset = tmp_path / "dataset"
    build(BuildConfig(images=photographs, runs=(described,), out=dataset, allow_partial=True))
    names, rows = rows_of(dataset)
    examples = fake_examples(
        names, [row["label"] for row in rows], [row["image_id"] for row in rows], [row["description"] for row in rows]
    )
    folder, rng = tmp_path / "exp", np.random.default_rng(0)
    for protocol in ("official", "clean"):
        for seed in (0, 1):
            write_run(folder, f"image_only-{protocol}-{seed}", examples, rng, both=False)
            write_run(folder, f"concat-{protocol}-{seed}", examples, rng)
            write_run(folder, f"attention_pooling-{protocol}-{seed}", examples, rng, attention=True)
        distances = {"image_id": examples.image_ids, "distance": rng.random(len(rows)), "nearest": examples.image_ids}
        write_table(folder / "distances" / f"{protocol}.parquet", pa.table(distances))
    config = {"dataset": str(dataset), "images": str(photographs), "set_name": None, "is_frozen": True, "epochs": 5}
    config |= {"models": ["image_only", "concat", "attention_pooling"], "n_seeds": 2, "protocol": "both", "lr": 0.001}
    config |= {"batch_size": 8, "image_backbone": str(tmp_path / "vit"), "text_backbone": "a/bert"}
    write_json(folder / "config.json", config)
    return folder
