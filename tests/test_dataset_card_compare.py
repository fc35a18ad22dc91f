"""A comparison of two description sets: every number against one computed in another, plainer way."""

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, replace
from html import unescape
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.files import write_json
from dataset_card.compare.attributes import said_in
from dataset_card.compare.command import compare as compare_command
from dataset_card.compare.compare import CompareConfig, compare
from dataset_card.compare.page import write_page
from dataset_card.compare.tables import as_text
from dataset_card.compare.words import token_f1, words_of

NASTY_TEXT = '</style><script>window.ran = 1</script><img src=x onerror="window.ran = 2">\u202egnol\u202c \x1b[31m'
COLOURS = ("red", "pink", "brown", "black")


COPIES = {
    "test/papule/copy of train.jpg": "train/papule/pap-0.jpg",
    "test/plaque/pla-1.jpg": "train/papule/pap-2.jpg",
    "train/plaque/copy.jpg": "train/plaque/pla-3.jpg",
}


def digest_of(row, seed=""):
    """Of what the photograph is, not of its bytes: those differ between JPEG encoders, and the golden must not."""
    return hashlib.sha256(f"{seed}{COPIES.get(row.path, row.path)}".encode()).digest()


def colours_of(row, seed):
    digest = digest_of(row, seed)
    return COLOURS[digest[0] % 4], COLOURS[digest[1] % 4]


def say_a(row):
    first, second = colours_of(row, "a")
    return f"The image shows a {first} and {second} papule on the back of the hand, {digest_of(row).hex()[:6]}."


def say_b(row):
    first, _ = colours_of(row, "b")
    return f"Papule, {first}; well-defined border. {NASTY_TEXT}"


@pytest.fixture
def dataset(photographs, make_run, tmp_path):
    """Sets `a` and `b` over 26 photographs; B lacks some, repeats one text of A and says one empty thing."""
    runs = (
        make_run("a", text=say_a, change=lambda each: replace(each, findings='{"colour": ["red"], "site": "hand"}')),
        make_run(
            "b",
            text=lambda row: (
                say_a(row) if row.path.endswith("pap-3.jpg") else " " if row.path.endswith("pap-4.jpg") else say_b(row)
            ),
            keep=lambda row: row.image_id[0] != "a",
            change=lambda each: replace(
                each,
                flags=("names_label", "truncated") if each.image_id[0] in "012" else (),
                findings='{"colour": ["brown", "red"], "site": "face"}' if each.image_id[0] in "0123" else "{damaged",
            ),
        ),
    )
    for run in runs:
        facts = json.loads((run / "run.json").read_text())
        write_json(run / "run.json", {**facts, "schema": {"name": "derm"}})
    build(BuildConfig(images=photographs, runs=runs, out=tmp_path / "dataset", allow_partial=True))
    return tmp_path / "dataset"


@pytest.fixture
def config(dataset):
    return CompareConfig(dataset=str(dataset), set_a="a", set_b="b")


def rows_of(dataset, set_name):
    shards = sorted((dataset / set_name).glob("*.parquet"))
    return {row["image_id"]: row for shard in shards for row in pq.read_table(shard).to_pylist()}


def test_every_count_is_that_of_the_rows(config, dataset):
    found = compare(config)
    a, b = rows_of(dataset, "a"), rows_of(dataset, "b")
    both = sorted(a.keys() & b.keys())
    assert (found.n_pairs, found.n_only_a, found.n_only_b, found.n_changed) == (len(both), len(a) - len(both), 0, 0)
    assert found.n_only_a > 0
    assert found.n_identical == sum(a[each]["description"] == b[each]["description"] for each in both) > 0
    for side, rows in ((found.a, a), (found.b, b)):
        texts = [rows[each]["description"] for each in both]
        lengths = sorted(len(re.findall(r"\w+", text)) for text in texts)
        assert (side.words.minimum, side.words.maximum) == (lengths[0], lengths[-1])
        assert side.words.mean == pytest.approx(sum(lengths) / len(lengths))
        assert side.n_distinct_texts == len(set(texts))
        assert side.n_words == sum(lengths)
        assert side.n_empty == sum(not text.strip() for text in texts)
        assert side.n_distinct_words == len({word for text in texts for word in re.findall(r"\w+", text.lower())})
        assert side.model == f"example/{side.name} @ 0123456789ab"
    flags = {
        flag: [
            sum(flag in a[each]["flags"] for each in both),
            sum(flag in b[each]["flags"] for each in both),
            sum(flag in a[each]["flags"] and flag in b[each]["flags"] for each in both),
        ]
        for flag in ("names_label", "truncated")
    }
    assert found.flags == flags
    colours = found.attributes["colour"]
    named = [(said_in(a[each]["description"])["colour"], said_in(b[each]["description"])["colour"]) for each in both]
    assert (colours.n_a, colours.n_b) == (sum(bool(x) for x, _ in named), sum(bool(y) for _, y in named))
    assert colours.n_both == sum(bool(x and y) for x, y in named)
    assert colours.n_same == sum(bool(x) and x == y for x, y in named)
    assert colours.n_disjoint == sum(bool(x and y) and not x & y for x, y in named) > 0
    assert sum(colours.instead.values()) <= colours.n_disjoint
    assert colours.values["red"] == [
        sum("red" in x for x, _ in named),
        sum("red" in y for _, y in named),
        sum("red" in x and "red" in y for x, y in named),
    ]
    with_findings = [each for each in both if each[0] in "0123"]
    assert found.n_with_findings == len(with_findings) > 0
    assert found.findings["colour"].n_disjoint == 0
    assert found.findings["site"].instead == {"hand → face": len(with_findings)}


def test_agreement_is_over_all_pairs_and_beside_it_stands_chance(config, dataset):
    found = compare(config)
    a, b = rows_of(dataset, "a"), rows_of(dataset, "b")
    splits = {image_id: "test" if row["path"].startswith("test/") else "train" for image_id, row in a.items()}
    both = sorted(a.keys() & b.keys(), key=lambda each: (splits[each] != "train", each))

    def f1(x, y):
        return token_f1(Counter(words_of(x["description"])), Counter(words_of(y["description"])))

    expected = [f1(a[each], b[each]) for each in both]
    assert found.agreement["token_f1"].mean == pytest.approx(np.mean(expected))
    assert found.agreement["token_f1"].n_pairs == len(both)
    assert found.agreement["token_f1"].median == pytest.approx(np.median(expected))
    chance = [f1(a[this], b[before]) for before, this in pairwise(both)]
    assert found.agreement["token_f1"].by_chance == pytest.approx(np.mean(chance))
    assert set(found.agreement) == {"token_f1", "jaccard"}


def test_the_most_different_pairs_are_the_least_alike_each_photograph_once(config, dataset):
    found = compare(config.model_copy(update={"n_different": 5}))
    everything = compare(config.model_copy(update={"n_different": 100})).different
    assert found.different == everything[:5]
    keys = [(pair.likeness, int(pair.image_sha256, 16)) for pair in everything]
    assert keys == sorted(keys)
    assert len({pair.image_sha256 for pair in everything}) == len(everything)
    a, b = rows_of(dataset, "a"), rows_of(dataset, "b")
    not_empty = {row["image_sha256"] for each, row in b.items() if row["description"].strip() and each in a}
    assert {pair.image_sha256 for pair in everything} == not_empty
    assert compare(config.model_copy(update={"n_different": 0})).different == []


def test_features_give_a_cosine_and_decide_what_is_most_different(config, dataset, tmp_path):
    ids = sorted(rows_of(dataset, "a"))
    random = np.random.default_rng(0)
    vectors = {name: random.normal(size=(len(ids), 8)) for name in "ab"}
    for name, rows in vectors.items():
        np.savez(tmp_path / f"{name}.npz", image_id=np.array(ids), features=rows)
    both = {"features_a": tmp_path / "a.npz", "features_b": tmp_path / "b.npz"}
    found = compare(config.model_copy(update=both))
    unit = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in vectors.items()}
    cosines = dict(zip(ids, (unit["a"] * unit["b"]).sum(axis=1), strict=True))
    shared = sorted(rows_of(dataset, "b"))
    assert found.agreement["cosine"].mean == pytest.approx(np.mean([cosines[each] for each in shared]), abs=1e-6)
    assert [pair.likeness for pair in found.different] == pytest.approx(
        sorted(cosines[pair.image_id] for pair in found.different), abs=1e-6
    )
    with pytest.raises(UserError) as caught:
        compare(config.model_copy(update={"features_a": tmp_path / "a.npz"}))
    assert str(caught.value) == "features of one set alone say nothing\n  fix: give both --features-a and --features-b"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"path": np.array(["x"]), "features": np.ones((1, 2))},
            "{path} holds the arrays path, features, not image_id and features\n"
            "  fix: numpy.savez(FILE, image_id=ids, features=vectors), ids as text",
        ),
        (
            {"image_id": np.array(["x", "y"]), "features": np.ones((1, 2))},
            "{path}: image_id is <U1 (2,), features float64 (1, 2)\n"
            "  fix: numpy.savez(FILE, image_id=ids, features=vectors), ids as text",
        ),
        (
            {"image_id": np.array(["x"]), "features": np.array([[1.0, np.nan]])},
            "{path} holds features that are no finite numbers",
        ),
        (
            {"image_id": np.array(["x"], dtype=object), "features": np.ones((1, 2))},
            "cannot read {path} as npz: Object arrays cannot be loaded when allow_pickle=False\n"
            "  fix: numpy.savez(FILE, image_id=ids, features=vectors), ids as text",
        ),
        (
            {"image_id": np.array(["x"]), "features": np.ones((1, 2))},
            "{path} holds no features of image {first}\n  fix: make features of every description",
        ),
    ],
)
def test_features_that_do_not_fit_are_refused_and_nothing_is_unpickled(config, dataset, tmp_path, arrays, message):
    path = tmp_path / "features.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError) as caught:
        compare(config.model_copy(update={"features_a": path, "features_b": path}))
    first = min(each for each, row in rows_of(dataset, "b").items() if row["path"].startswith("train/"))
    assert str(caught.value) == message.format(path=path, first=first)


def experiment(folder, set_name, model="text_only"):
    score = {"accuracy_mean": 41.5, "accuracy_sd": 0.25, "macro_f1_mean": 0.31234, "macro_f1_sd": 0.01}
    ours = {
        "official": {**score, "n_seeds": 5, "n_test": 400},
        "clean": {**score, "accuracy_sd": None, "n_seeds": 1, "n_test": 300},
    }
    write_json(folder / "config.json", {"set_name": set_name})
    write_json(
        folder / "results.json", {"table": {"rows": [{"model": "concat", "ours": {}}, {"model": model, "ours": ours}]}}
    )
    return folder


def test_text_only_accuracy_is_read_from_experiments(config, tmp_path):
    folders = (experiment(tmp_path / "of-b", "b"), experiment(tmp_path / "of-primary", None))
    found = compare(config.model_copy(update={"experiments": folders}))
    assert [(each.protocol, each.set_name) for each in found.text_only] == [
        ("official", "a"),
        ("official", "b"),
        ("clean", "a"),
        ("clean", "b"),
    ]
    text = as_text(found)
    lines = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    assert ["official, a", "41.50 ± 0.25", "0.3123", "5", "400"] in lines
    assert ["clean, b", "41.50", "0.3123", "1", "300"] in lines


def test_experiments_that_do_not_fit_are_refused(config, tmp_path):
    for folder, message in (
        (
            tmp_path,
            "{} is no finished experiment: it lacks config.json or results.json\n"
            "  fix: vl-dermnet train DATASET --model text_only --set a --out '{}'",
        ),
        (experiment(tmp_path / "of-c", "c"), "{} was trained on the set 'c', and compared are a and b"),
        (
            experiment(tmp_path / "images", "b", model="image_only"),
            "{} holds no results of the text-only model\n"
            "  fix: vl-dermnet train DATASET --model text_only --set b --out '{}'",
        ),
    ):
        with pytest.raises(UserError) as caught:
            compare(config.model_copy(update={"experiments": (folder,)}))
        assert str(caught.value) == message.format(folder, folder)


def test_mistakes_in_the_names_of_sets_are_told(config):
    with pytest.raises(UserError) as caught:
        compare(config.model_copy(update={"set_b": "a"}))
    assert str(caught.value) == "the set 'a' is compared with itself\n  fix: name two sets of the dataset"
    with pytest.raises(UserError) as caught:
        compare(config.model_copy(update={"set_b": "c"}))
    assert str(caught.value) == "unknown description set 'c'; choose one of: a, b"


def test_shards_in_another_order_are_refused(config, dataset):
    shard = next((dataset / "b").glob("train-*.parquet"))
    table = pq.read_table(shard)
    pq.write_table(table.sort_by([("image_id", "descending")]), shard)
    ids = sorted(table["image_id"].to_pylist())
    with pytest.raises(UserError) as caught:
        compare(config)
    assert str(caught.value) == (
        f"{shard} is not sorted by image_id: '{ids[-2]}' stands after '{ids[-1]}'\n"
        "  fix: build the dataset again: `vl-dermnet build`"
    )


def test_rows_of_files_that_changed_between_the_sets_are_counted_and_not_compared(config, dataset):
    shard = next((dataset / "b").glob("train-*.parquet"))
    rows = pq.read_table(shard)
    digests = ["0" * 64, *rows["image_sha256"].to_pylist()[1:]]
    at = rows.schema.get_field_index("image_sha256")
    before = compare(config)
    pq.write_table(rows.set_column(at, rows.schema.field(at), [digests]), shard)
    found = compare(config)
    assert (found.n_changed, found.n_pairs) == (1, before.n_pairs - 1)


def test_the_same_sets_give_the_same_result_and_text(config, golden):
    first, second = compare(config), compare(config)
    assert first == second
    assert as_text(first) == as_text(second)
    golden("compare.txt", as_text(first).split("The 20 most different")[0])


def test_the_page_shows_the_pairs_with_their_photographs_and_runs_nothing(config, dataset, photographs, tmp_path):
    out = tmp_path / "compare.html"
    said = []
    write_page(out, compare(config), str(dataset), str(photographs), said.append)
    html = out.read_text()
    assert said == []
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert html.count('<img src="data:image/jpeg;base64,') == html.count("<article") == 20
    assert re.search(r"default-src 'none'.*style-src 'sha256-", unescape(html))
    assert "a|b &lt;script&gt;&#34;x&#34; `c` \\u202egnol\\u202c שלום" in html
    write_page(out, compare(config), str(dataset), None, said.append)  # an older comparison is replaced
    assert said == ["the page shows no photographs: the dataset holds none; with --images ROOT local ones are shown"]
    assert "no picture here" in out.read_text()
    (photographs / "train/papule/pap-1.jpg").unlink()
    write_page(out, compare(config), str(dataset), str(photographs), said.append)
    assert said[1] == (f"1 of 20 photographs are not in {photographs}, or have other bytes: train/papule/pap-1.jpg")


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("page.txt", "a comparison is a page, and '{out}' does not end in .html\n  fix: --out '{stem}.html'"),
        ("mine.html", "{out} is there and is no comparison; it was left as it is\n  fix: choose another --out"),
        (
            "dataset/page.html",
            "{out} is inside the dataset {dataset}: `publish` would publish the photographs with it\n"
            "  fix: --out 'page.html'",
        ),
    ],
)
def test_a_page_goes_only_where_nothing_is_lost_or_published(config, dataset, tmp_path, out, message):
    (tmp_path / "mine.html").write_text("mine")
    out = tmp_path / out
    with pytest.raises(UserError) as caught:
        write_page(out, compare(config), str(dataset))
    assert str(caught.value) == message.format(out=out, stem=out.with_suffix(""), dataset=dataset)


def test_the_command_prints_tables_or_json_and_writes_the_page(config, dataset, photographs, tmp_path):
    app = typer.Typer()
    app.command()(compare_command)
    arguments = [str(dataset), "a", "b", "--images", str(photographs), "--out", str(tmp_path / "compare.html")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{as_text(compare(config))}\npage: {tmp_path}/compare.html   (open it in a browser)\n"
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(result.stdout) == json.loads(json.dumps(asdict(compare(config))))
