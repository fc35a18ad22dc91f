from collections import Counter, defaultdict
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.schema import IndexRow, image_id_of
from builders.splits import derive_splits


def index_row(path: str, content: str, split: str = "train", label: str = "papule") -> IndexRow:
    return IndexRow(
        image_id=image_id_of(path),
        image_sha256=sha256(content.encode()).hexdigest(),
        path=path,
        split=split,
        label=label,
        width_px=8,
        height_px=8,
        n_bytes=1,
        format="JPEG",
        status="ok",
        reason="",
    )


@st.composite
def indexes(draw, splits=("train", "test")):
    """Up to 60 files whose bytes are often equal, under three labels and in several splits."""
    cells = st.tuples(st.sampled_from(splits), st.sampled_from(["a", "b", "c"]), st.integers(0, 30))
    return [
        index_row(f"{number}.jpg", str(content), split, label)
        for number, (split, label, content) in enumerate(draw(st.lists(cells, max_size=60)))
    ]


seeds = st.integers(0, 3)


@given(rows=indexes(("train", "validation", "test")), seed=seeds, data=st.data())
def test_the_order_of_rows_does_not_matter(rows, seed, data):
    assert derive_splits(data.draw(st.permutations(rows)), seed=seed) == derive_splits(rows, seed=seed)


@given(rows=indexes(), seed=seeds)
def test_no_group_is_cut_by_the_validation_part(rows, seed):
    derived, _ = derive_splits(rows, seed=seed, validation_fraction=0.4)
    splits = defaultdict(set)
    source = defaultdict(set)
    for row in rows:
        splits[row.image_sha256].add(derived[row.image_id].split_official)
        source[row.image_sha256].add(row.split)
    for content, found in splits.items():
        assert len(found) == len(source[content])  # as many as the source itself put it in


@given(rows=indexes(("train", "validation", "test")), seed=seeds)
def test_a_photograph_is_in_the_clean_split_once_and_under_one_label(rows, seed):
    derived, counts = derive_splits(rows, seed=seed, validation_fraction=0.3)
    kept = [row for row in rows if derived[row.image_id].split_clean != "excluded"]
    assert max(Counter(row.image_sha256 for row in kept).values(), default=1) == 1
    labels = defaultdict(set)
    for row in rows:
        labels[row.image_sha256].add(row.label)
    assert {row.image_sha256 for row in kept} == {content for content, names in labels.items() if len(names) == 1}
    excluded = counts.n_excluded_conflict + counts.n_excluded_across_splits + counts.n_excluded_surplus
    assert excluded == len(rows) - len(kept) == counts.n_clean.get("excluded", 0)


@given(rows=indexes(("train", "validation", "test")), seed=seeds)
def test_test_rows_stay_test_rows_and_validation_comes_out_of_train_only(rows, seed):
    derived, _ = derive_splits(rows, seed=seed)
    source_has_validation = any(row.split == "validation" for row in rows)
    for row in rows:
        official = derived[row.image_id].split_official
        if row.split != "train" or source_has_validation:
            assert official == row.split
        else:
            assert official in ("train", "validation")


@given(rows=indexes(), seed=seeds)
def test_the_balanced_subset_has_equally_many_rows_of_clean_train_per_class(rows, seed):
    derived, counts = derive_splits(rows, seed=seed)
    train = [row for row in rows if derived[row.image_id].split_clean == "train"]
    chosen = Counter(row.label for row in rows if derived[row.image_id].in_balanced_subset)
    smallest = min(Counter(row.label for row in train).values(), default=0)
    assert set(chosen.values()) <= {smallest}
    assert set(chosen) == {row.label for row in train}
    assert all(row in train for row in rows if derived[row.image_id].in_balanced_subset)
    assert counts.n_balanced_per_label == smallest


def test_validation_takes_its_share_of_every_class_and_at_least_one():
    sizes = {"a": 200, "b": 50, "c": 3}
    rows = [index_row(f"{label}/{i}", f"{label}{i}", label=label) for label, n in sizes.items() for i in range(n)]
    derived, _ = derive_splits(rows, validation_fraction=0.1)
    drawn = Counter(row.label for row in rows if derived[row.image_id].split_official == "validation")
    assert drawn == {"a": 20, "b": 5, "c": 1}


def contradictions(n_rows):
    """Copies of one photograph, all but the last labelled a: rows of a that no split can use."""
    return [index_row(f"a/copy-{n}", "copy", label="a") for n in range(n_rows - 1)] + [
        index_row("b/copy", "copy", label="b")
    ]


def test_the_only_clean_photograph_of_a_class_is_trained_on():
    rows = [index_row("a/1", "one", label="a"), *contradictions(8)]
    derived, _ = derive_splits(rows)
    assert derived[image_id_of("a/1")].split_clean == "train"
    cut = [index_row("a/2", "two", label="a"), index_row("test/a/2", "two", split="test", label="a")]
    derived, _ = derive_splits([*rows, *cut])  # a photograph that train shares with test stays, so this one may go
    assert derived[image_id_of("a/1")].split_clean == "validation"
    assert derived[image_id_of("a/2")].split_clean == "train"


@given(rows=indexes(), seed=seeds, fraction=st.floats(0, 0.9))
def test_no_class_that_can_be_trained_on_is_carved_away(rows, seed, fraction):
    def trained_on(fraction):
        derived, _ = derive_splits(rows, seed=seed, validation_fraction=fraction)
        return {row.label for row in rows if derived[row.image_id].split_clean == "train"}

    assert trained_on(fraction) == trained_on(0)


def test_another_seed_draws_other_rows():
    rows = [index_row(f"{i}", f"{i}") for i in range(100)]
    first, second = derive_splits(rows, seed=0)[0], derive_splits(rows, seed=1)[0]
    assert first != second


def test_more_photographs_move_few_of_the_others():
    rows = [index_row(f"{i}", f"{i}") for i in range(1000)]
    before, _ = derive_splits(rows[:990])
    after, _ = derive_splits(rows)
    moved = sum(before[row.image_id].split_official != after[row.image_id].split_official for row in rows[:990])
    assert moved <= 10


def test_groups_from_an_audit_stay_together_and_near_copies_are_kept():
    rows = [index_row(f"{i}", f"{i}") for i in range(100)]
    groups = {row.image_id: f"patient-{int(row.path) // 4}" for row in rows}
    derived, counts = derive_splits(rows, groups=groups, validation_fraction=0.2)
    per_group = defaultdict(set)
    for row in rows:
        per_group[groups[row.image_id]].add(derived[row.image_id].split_clean)
    assert all(len(splits) == 1 for splits in per_group.values())
    assert counts.n_clean == {"train": 80, "validation": 20}


def test_a_group_is_named_after_the_bytes_its_copies_share():
    rows = [index_row("a", "same"), index_row("b", "same"), index_row("c", "other")]
    shared = sha256(b"same").hexdigest()[:16]
    derived, _ = derive_splits(rows)
    assert [derived[row.image_id].duplicate_group for row in rows] == [shared, shared, ""]


def test_rows_without_a_label_are_split_but_never_balanced():
    rows = [index_row(f"{i}", f"{i}", label="") for i in range(10)]
    derived, counts = derive_splits(rows)
    assert counts.n_official == {"train": 9, "validation": 1}
    assert not any(each.in_balanced_subset for each in derived.values())


def test_an_unknown_split_is_a_bug():
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        derive_splits([index_row("a", "a", split="dev")])


def test_a_row_that_the_audit_has_not_seen_joins_the_group_of_its_byte_copy():
    rows = [index_row("a", "one"), index_row("b", "two"), index_row("c", "two", split="test"), index_row("d", "three")]
    groups = {image_id_of("a"): "g", image_id_of("b"): "g"}
    derived, counts = derive_splits(rows, groups=groups, validation_fraction=0)
    assert [derived[row.image_id].duplicate_group for row in rows] == ["g", "g", "g", ""]
    assert [derived[row.image_id].split_clean for row in rows] == ["train", "train", "excluded", "train"]
    assert (counts.n_groups, counts.n_excluded_across_splits) == (1, 1)


def test_byte_copies_in_two_groups_of_an_audit_make_one_group():
    rows = [index_row(path, content) for path, content in zip("abcd", "xyyz", strict=True)]
    groups = {image_id_of("a"): "h", image_id_of("b"): "h", image_id_of("c"): "g", image_id_of("d"): "g"}
    derived, _ = derive_splits(rows, groups=groups)
    assert {each.duplicate_group for each in derived.values()} == {"g"}


@given(rows=indexes(("train", "validation", "test")), seed=seeds)
def test_no_groups_at_all_and_the_groups_by_bytes_are_the_same(rows, seed):
    assert derive_splits(rows, seed=seed) == derive_splits(rows, seed=seed, groups={})
    groups = {image_id: each.duplicate_group for image_id, each in derive_splits(rows, seed=seed)[0].items()}
    assert derive_splits(rows, seed=seed) == derive_splits(rows, seed=seed, groups=groups)


def test_rows_whose_bytes_are_not_known_are_nobodys_copies():
    rows = [replace(index_row(path, path), image_sha256="") for path in "abc"]
    groups = {image_id_of("a"): "g", image_id_of("b"): "g"}
    derived, counts = derive_splits(rows, validation_fraction=0)
    assert {each.duplicate_group for each in derived.values()} == {""}
    derived, counts = derive_splits(rows, groups=groups, validation_fraction=0)
    assert counts.n_clean == {"train": 3}
