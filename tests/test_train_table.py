"""train/table: every number from the predictions files, beside what the paper reports; what is said follows."""

import csv
import io
import itertools
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import stats

from builders.errors import UserError
from builders.files import read_json, write_json
from train.config import TrainConfig
from train.recipes import RECIPES
from train.statistics.interval import Interval
from train.table import experiment_table, table_json
from train.table.render import Part, as_latex, latex, markdown
from train.table.rows import Delta


def write(folder, name, labels, predicted, groups=None):
    (folder / "predictions").mkdir(exist_ok=True)
    ids = [f"{i:04}" for i in range(len(labels))]
    columns = {"image_id": ids, "group": list(groups or ids), "label": list(labels), "predicted": list(predicted)}
    pq.write_table(pa.table(columns), folder / f"predictions/{name}.parquet")


def write_config(folder, **changes):
    settings = TrainConfig(dataset="dermnet", out=folder, **changes).model_dump(mode="json")
    write_json(folder / "config.json", settings)


@pytest.fixture
def experiment(tmp_path):
    write_config(tmp_path)
    write(tmp_path, "image_only-official-0", "aabb", "aabb")
    write(tmp_path, "image_only-official-1", "aabb", "aaba")
    write(tmp_path, "image_only-clean-0", "ab", "ab")
    write(tmp_path, "attention_pooling-official-0", "aabb", "bbaa")
    return tmp_path


def mistaken(rng, labels, share):
    """`labels` with about `share` of them replaced by another."""
    return "".join(label if rng.random() > share else {"a": "b", "b": "c", "c": "a"}[label] for label in labels)


@pytest.fixture
def large(tmp_path):
    """600 images, three seeds: concat is much better than the image alone, gating much worse, dual FiLM the same."""
    rng = np.random.default_rng(0)
    labels = "abc" * 200
    shares = {
        "image_only": 0.3,
        "concat": 0.1,
        "gating": 0.6,
        "dual_film": 0.3,
        "concat+shuffled_text": 0.3,
        "concat+shuffled_text_within_class": 0.1,
    }
    for protocol, seed, model in itertools.product(("official", "clean"), range(3), shares):
        write(tmp_path, f"{model}-{protocol}-{seed}", labels, mistaken(rng, labels, shares[model]))
    return tmp_path


def shown(table, width):
    console = Console(width=width, file=io.StringIO())
    console.print(table.as_rich())
    return console.file.getvalue()


def row_of(table, model):
    return next(row for row in table.rows if row.model == model)


def test_means_and_standard_deviations_are_over_seeds(experiment):
    rows = {row.model: row for row in experiment_table(experiment).rows}
    score = rows["image_only"].ours["official"]
    assert (score.accuracy_mean, score.n_seeds, score.n_test, score.n_groups) == (87.5, 2, 4, 4)
    assert score.accuracy_sd == pytest.approx(17.6777, abs=1e-4)
    assert score.macro_f1_mean == pytest.approx((1 + (0.8 + 2 / 3) / 2) / 2)
    # mean - t sd / sqrt(2) is -71 %, and no accuracy is
    assert score.accuracy_over_seeds == Interval(0, 100)
    assert rows["image_only"].ours["clean"].accuracy_sd is None
    assert rows["image_only"].ours["clean"].accuracy_over_seeds is None
    assert rows["attention_pooling"].ours["official"].macro_f1_mean == 0
    assert rows["concat"].ours == {}


def test_a_difference_is_over_the_seeds_that_both_have(experiment):
    compared = row_of(experiment_table(experiment), "attention_pooling").against_image_only["official"]
    assert (compared.n_seeds, compared.accuracy.mean) == (1, -100)
    assert (compared.n_only_first, compared.n_only_second, compared.p_value) == (0, 4, 0.125)


def test_the_paired_interval_is_that_of_a_bootstrap_written_out(large):
    found = row_of(experiment_table(large), "dual_film").against_image_only["official"].accuracy
    rng = np.random.default_rng(9)
    tables = {
        model: [pq.read_table(large / f"predictions/{model}-official-{seed}.parquet").to_pydict() for seed in range(3)]
        for model in ("image_only", "dual_film")
    }
    labels = np.array(tables["image_only"][0]["label"])
    right = {model: np.array([each["predicted"] for each in of_model]) == labels for model, of_model in tables.items()}
    gained = right["dual_film"].astype(float) - right["image_only"]  # (seeds, images)
    stretch = (3 / 2) ** 0.5 * stats.t.ppf(0.975, 2) / stats.norm.ppf(0.975)
    deltas = []
    for _ in range(4000):
        of_seeds = 100 * gained[:, rng.integers(600, size=600)].mean(axis=1)
        deltas.append(of_seeds.mean() + stretch * (of_seeds[rng.integers(3, size=3)].mean() - of_seeds.mean()))
    assert found.low == pytest.approx(np.quantile(deltas, 0.025), abs=2)  # chance in 2,000 resamples: a point or two
    assert found.high == pytest.approx(np.quantile(deltas, 0.975), abs=2)
    assert np.quantile(deltas, 0.975) - np.quantile(deltas, 0.025) > 12


def test_text_hurts_only_where_controls_without_it_hurt_less(tmp_path):
    rng = np.random.default_rng(0)
    labels = "abc" * 200
    for control, mistakes in (("empty_text", 0.6), ("random_text", 0.3)):
        folder = tmp_path / control
        folder.mkdir()
        write_config(folder)
        for seed, (model, share) in itertools.product(
            range(3), {"image_only": 0.3, "concat": 0.6, f"concat+{control}": mistakes}.items()
        ):
            write(folder, f"{model}-official-{seed}", labels, mistaken(rng, labels, share))
    said = [experiment_table(tmp_path / control).sentences()[0] for control in ("empty_text", "random_text")]
    assert re.search(r"accuracy: cannot be told for Concat \(.*, but not below empty text\)\.$", said[0])
    assert re.search(r"accuracy: text hurts in Concat \([^,]*, 95 % [^,]*\)\.$", said[1])
    rows = [row_of(experiment_table(tmp_path / control), "concat") for control in ("empty_text", "random_text")]
    assert {row.against_image_only["official"].accuracy.verdict for row in rows} == {"hurts"}


def test_one_seed_is_said_to_be_one(tmp_path):
    write_config(tmp_path)
    labels = "abc" * 200
    for model, share in {"image_only": 0.6, "concat": 0.1}.items():
        write(tmp_path, f"{model}-official-0", labels, mistaken(np.random.default_rng(0), labels, share))
    assert re.search(
        r"text helps in Concat \(.*, without a control, one seed\)\.$", experiment_table(tmp_path).sentences()[0]
    )


def test_what_is_said_of_text_follows_from_the_interval_and_not_from_the_mean():
    assert Delta(0.5, 0.1, 0.9).verdict == "helps"
    assert Delta(-0.5, -0.9, -0.1).verdict == "hurts"
    assert Delta(0.5, -0.1, 1.1).verdict == Delta(-0.5, -1.1, 0.1).verdict == "cannot be told"


def test_each_protocol_and_metric_has_its_sentence_with_numbers(large):
    sentences = experiment_table(large).sentences()
    assert [sentence.partition(":")[0] for sentence in sentences] == [
        f"{protocol} {metric}"
        for protocol in ("official", "clean")
        for _ in ("text", "controls")
        for metric in ("accuracy", "macro-F1")
    ]
    number = r"[+−][\d.]+"
    for sentence in (sentences[0], sentences[4]):
        assert re.fullmatch(
            rf"(official|clean) accuracy: text helps in Concat \({number} points, 95 % {number} to {number}\); "
            rf"text hurts in Gating \(.*\); cannot be told for Dual FiLM \(.*\)\.",
            sentence,
        )
    assert re.fullmatch(
        rf"official accuracy: Concat is better than shuffled text \({number} points, .*\); "
        r"not to be told from shuffled text within class \(.*\)\.",
        sentences[2],
    )


def test_a_fusion_that_is_better_with_foreign_texts_as_well_is_not_said_to_be_helped_by_its_own(large):
    rng = np.random.default_rng(1)
    for seed in range(3):
        write(large, f"concat+empty_text-official-{seed}", "abc" * 200, mistaken(rng, "abc" * 200, 0.1))
    official, clean = (experiment_table(large).sentences()[place] for place in (0, 4))
    assert "text helps" not in official
    assert re.search(r"cannot be told for Concat \(\+.*, but not above empty text\), Dual FiLM", official)
    assert "text helps in Concat" in clean


def test_a_gain_that_no_control_was_held_against_is_said_to_be_so(large):
    for file in (large / "predictions").glob("*+*"):
        file.unlink()
    table = experiment_table(large)
    assert re.search(r"text helps in Concat \(\+[^)]*, without a control\);", table.sentences()[0])
    assert any(note.startswith("Without a control: ") for note in table.notes())


def test_without_the_image_alone_nothing_is_said_of_text(tmp_path):
    write(tmp_path, "concat-official-0", "ab", "ab")
    (sentence,) = experiment_table(tmp_path).sentences()
    assert sentence == ("official: whether text helps cannot be told: no fusion beside the image alone was trained.")


def test_p_values_are_corrected_for_the_models_of_a_protocol_and_for_its_controls(large):
    rows = [row for row in experiment_table(large).rows if "official" in row.against_image_only]
    for is_control, n_rows in ((False, 3), (True, 2)):
        compared = [row.against_image_only["official"] for row in rows if ("+" in row.model) == is_control]
        assert len(compared) == n_rows
        smallest = min(compared, key=lambda each: each.p_value)
        assert smallest.p_holm == pytest.approx(n_rows * smallest.p_value)
        assert all(each.p_holm >= each.p_value for each in compared)


def test_copies_widen_the_interval_and_count_once_in_mcnemars_test(tmp_path):
    """Of 20 photographs with eight copies each, five are wrong in all copies."""
    labels = "ab" * 80
    wrong = "".join("b" if i < 40 and label == "a" else label for i, label in enumerate(labels))
    width, n_wrong = {}, {}
    for name, groups in (("apart", None), ("together", [str(i // 8) for i in range(160)])):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "image_only-official-0", labels, labels, groups)
        write(tmp_path / name, "concat-official-0", labels, wrong, groups)
        row = row_of(experiment_table(tmp_path / name), "concat")
        interval = row.ours["official"].accuracy_bootstrap
        width[name], n_wrong[name] = (
            interval.high - interval.low,
            row.against_image_only["official"].n_only_second,
        )
    assert width["together"] > 1.5 * width["apart"]
    assert n_wrong == {"apart": 20, "together": 5}


def test_the_markdown_reads_as_the_paper_does(experiment, golden):
    golden("train_table.md", experiment_table(experiment).as_markdown())


def test_the_latex_is_the_same_table(experiment, golden):
    golden("train_table.tex", experiment_table(experiment).as_latex())


def test_names_cannot_break_markdown_or_latex(tmp_path):
    assert latex("50 % of a_b & {c} ~ ^ # $ \\ − < x") == (
        r"50 \% of a\_b \& \{c\} \textasciitilde{} \textasciicircum{} \# \$ \textbackslash{} $-$ $<$ x"
    )
    assert markdown("a|b\n*c* <i> `d` [e](f)") == r"a\|b \*c\* \<i\> \`d\` \[e\](f)"
    write(tmp_path, "a|b_c%-official-0", "ab", "ab")
    table = experiment_table(tmp_path)
    assert r"| a\|b\_c% | – |" in table.as_markdown()
    assert r"a|b\_c\% & -- &" in table.as_latex()
    part = Part("a\n\\input{x}", ["model"], [["b"]])
    assert as_latex([part], [], ["c\n\\input{y}"]).count("\n\\input") == 0


def test_csv_has_a_line_per_row_and_protocol_with_unrounded_numbers(large):
    table = experiment_table(large)
    lines = list(csv.DictReader(io.StringIO(table.as_csv())))
    assert len(lines) == 6 * 2
    line = next(line for line in lines if (line["model"], line["protocol"]) == ("concat", "clean"))
    row = row_of(table, "concat")
    assert float(line["accuracy_bootstrap_low"]) == row.ours["clean"].accuracy_bootstrap.low
    assert float(line["against_image_only_p_holm"]) == row.against_image_only["clean"].p_holm
    assert line["model_minus_control_p_value"] == ""


def test_json_holds_unrounded_numbers_and_the_notes(experiment):
    values = json.loads(table_json(experiment_table(experiment)))
    assert [row["model"] for row in values["rows"]][-1] == "attention_pooling"
    assert values["rows"][0]["published_accuracy"] == 35.66
    assert values["rows"][1]["ours"]["official"]["accuracy_bootstrap"]["high"] == 100
    assert "comparable only to ours on DermNet's official split" in values["notes"][0]
    assert "not for clinical use" in values["notes"][-1]


def test_a_table_is_the_same_each_time(large):
    assert table_json(experiment_table(large)) == table_json(experiment_table(large))


def test_a_model_that_the_paper_lacks_comes_behind_it_and_controls_last(experiment):
    for model in ("concat+empty_text", "new_fusion"):
        write(experiment, f"{model}-official-0", "aabb", "aabb")
    rows = experiment_table(experiment).rows
    assert [(row.model, row.published_accuracy) for row in rows[-2:]] == [
        ("new_fusion", None),
        ("concat+empty_text", None),
    ]
    assert rows[-1].title == "Concat: empty text"


def test_the_terminal_table_fits_a_hundred_and_sixty_columns_without_breaking_a_number(large):
    text = shown(experiment_table(large), 160)
    table = experiment_table(large)
    for line in (line for part in table_parts(table) for line in part.lines):
        assert all(cell in text for cell in line)
    assert "…" not in text


def table_parts(table):
    from train.table.words import parts

    return parts(table)


def test_rows_of_one_encoder_are_called_after_the_experiments_own(experiment):
    write_config(experiment, image_backbone="facebook/dinov2-small", text_backbone="/somewhere/minilm")
    table = experiment_table(experiment)
    assert [row.title for row in table.rows[:2]] == ["minilm (text only)", "dinov2-small (image only)"]
    assert table.rows[0].published_accuracy == 35.66
    assert "official: minus dinov2-small (image only)" in [part.title for part in table_parts(table)]
    assert (
        "Not the paper's encoders, which are ViT and BERT: image dinov2-small, text minilm."
        in experiment_table(experiment).notes()
    )


def test_a_folder_that_does_not_tell_its_encoders_is_not_said_to_have_the_papers(experiment):
    (experiment / "config.json").unlink()
    table = experiment_table(experiment)
    assert [row.title for row in table.rows[:2]] == ["Text only", "Image only"]
    assert table.notes()[-1].startswith("Who wrote the texts is not told: config.json is not in this folder.")


def test_features_from_files_are_named_and_no_text_is_said_to_be_machine_written(experiment):
    given = {
        "features": ("a.npz",),
        "is_frozen": True,
        "image_features": ("clip", "resnet"),
        "text_features": ("dino",),
    }
    write_config(experiment, **given)
    table = experiment_table(experiment)
    assert [row.title for row in table.rows[:2]] == ["dino (text only)", "clip + resnet (image only)"]
    assert table.notes()[-1] == (
        "No texts were read: text stands for features from a file (dino), supplied with the data; who wrote what they "
        "are of is not known here. Research only, not for clinical use."
    )
    write_config(experiment, **given, image_features_of="CLIP and ResNet-50", text_features_of="MiniLM of age and sex")
    table = experiment_table(experiment)
    assert table.rows[1].title == "CLIP and ResNet-50 (image only)"
    assert "(MiniLM of age and sex)" in table.notes()[-1]
    assert "machine-written" not in table.as_markdown()


def test_who_wrote_the_descriptions_is_told(experiment):
    settings = read_json(experiment / "config.json")
    written = {"model": {"id": "OpenGVLab/InternVL3-8B-hf", "revision": "0123456789abcdef"}, "engine": {"kind": "vllm"}}
    write_json(experiment / "config.json", {**settings, "described_by": written})
    assert experiment_table(experiment).notes()[-1] == (
        "Descriptions are machine-written, by OpenGVLab/InternVL3-8B-hf at 0123456789ab. Research only, not for "
        "clinical use."
    )
    written["engine"]["kind"] = "scripted"
    write_json(experiment / "config.json", {**settings, "described_by": written})
    assert "come from a table" in experiment_table(experiment).notes()[-1]


def test_a_table_made_with_a_recipe_tells_what_it_assumes_and_what_was_overridden(experiment):
    write_config(experiment, recipe="paper", recipe_overrides=("n_seeds", "lr"), n_seeds=2, lr=0.5)
    notes = experiment_table(experiment).notes()
    assert any(note.endswith("overridden: n_seeds = 2, lr = 0.5.") for note in notes)
    for each in RECIPES["paper"].assumptions:
        (note,) = (note for note in notes if note.startswith(each.text))
        assert ("Not so here" in note) == bool({"n_seeds", "lr"} & {*each.settings})
    write_json(experiment / "config.json", {**read_json(experiment / "config.json"), "assumptions": ["As told then."]})
    notes = experiment_table(experiment).notes()
    assert "As told then." in notes
    assert not any(note.startswith("Recipe") for note in notes)


def test_a_folder_without_predictions_says_how_to_get_some(tmp_path):
    with pytest.raises(UserError, match=r"holds no predictions/\*\.parquet\n  fix: vl-dermnet train DATASET --out"):
        experiment_table(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes", b"", r"notes\.parquet is not named MODEL-PROTOCOL-SEED\.parquet"),
        ("concat-official-x", b"", r"concat-official-x\.parquet is not named"),
        (
            "concat-official-0",
            b"PAR1 and no more",
            r"concat-official-0\.parquet cannot be read: .*\n  fix: delete the file",
        ),
    ],
)
def test_a_file_that_is_no_table_of_predictions_is_named(experiment, name, content, said):
    (experiment / "predictions" / f"{name}.parquet").write_bytes(content)
    with pytest.raises(UserError, match=said):
        experiment_table(experiment)


def test_predictions_on_other_test_images_are_refused(experiment):
    write(experiment, "concat-official-0", "abab", "aabb")
    with pytest.raises(UserError, match="are not about the same test images, groups and labels"):
        experiment_table(experiment)
    pq.write_table(pa.table({"label": ["a"]}), experiment / "predictions" / "concat-official-0.parquet")
    with pytest.raises(UserError, match="has no column group, image_id, predicted"):
        experiment_table(experiment)
