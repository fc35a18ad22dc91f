"""Groups: connected components of all links, named by content, read back by build."""

from collections import defaultdict
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.audit.components import connected_components
from builders.audit.groups import Link, byte_links, count_groups, make_groups, read_groups, write_groups
from builders.audit.worst import PAIRS_PER_KIND, worst_pairs
from builders.errors import UserError
from builders.schema import IndexRow, image_id_of
from builders.splits import derive_splits


def audit_row(path, split="train", label="papule", content=None):
    return IndexRow(
        image_id=image_id_of(path),
        image_sha256=sha256((content or path).encode()).hexdigest(),
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


def near(first, second, kind="near_copy"):
    return Link(image_id_of(first), image_id_of(second), kind, 0.99, "upright")


@settings(deadline=None)
@given(n=st.integers(1, 30), data=st.data())
def test_components_are_the_closure_of_the_links(n, data):
    node = st.integers(0, n - 1)
    links = data.draw(st.lists(st.tuples(node, node), max_size=40))
    reach = [{each} for each in range(n)]
    for _ in range(n):
        for first, second in links:
            reach[first] |= reach[second]
            reach[second] |= reach[first]
    assert connected_components(n, links) == [min(each) for each in reach]


def test_byte_copies_alone_make_the_groups_that_build_makes_by_itself():
    rows = [audit_row("a", content="same"), audit_row("b", content="same"), audit_row("c")]
    members = make_groups(rows, byte_links(rows))
    groups = {image_id: each.duplicate_group for image_id, each in derive_splits(rows)[0].items()}
    assert {member.image_id: member.group for member in members} == {k: v for k, v in groups.items() if v}


def test_a_group_hangs_together_through_links_of_every_kind_and_each_file_keeps_its_strongest():
    rows = [audit_row("a", content="same"), audit_row("b", content="same"), *map(audit_row, "cdef")]
    links = [*byte_links(rows), near("b", "c"), near("c", "d", "close_features"), near("a", "c", "close_features")]
    members = make_groups(rows, links)
    assert {member.path: member.kind for member in members} == {
        "a": "byte_copy",
        "b": "byte_copy",
        "c": "near_copy",
        "d": "close_features",
    }
    assert {member.group for member in members} == {min(row.image_sha256 for row in rows[:4])[:16]}


def test_groups_and_links_are_counted_by_split_and_label():
    rows = [audit_row("a"), audit_row("b", "test"), audit_row("c", "test", "plaque"), audit_row("d"), audit_row("e")]
    links = [near("a", "b"), near("b", "c"), near("d", "e", "close_features")]
    facts = count_groups(rows, make_groups(rows, links), links)
    assert (facts.n_groups, facts.n_files, facts.largest) == (2, 5, 3)
    assert (facts.n_across_splits, facts.n_conflicts, facts.n_test_beside_train) == (1, 1, 2)
    assert facts.conflicts == [["a", "b", "c"]]
    assert facts.n_links == {"byte_copy": 0, "near_copy": 2, "close_features": 1}
    assert facts.n_links_across_splits["near_copy"] == facts.n_links_across_labels["near_copy"] == 1


def test_groups_are_read_back_as_they_were_written_and_no_group_spans_two_clean_splits(tmp_path):
    rows = [audit_row(f"{n}", "test" if n % 3 == 0 else "train") for n in range(60)]
    links = [near(f"{n}", f"{n + 1}") for n in range(0, 59, 4)]
    members = make_groups(rows, links)
    write_groups(tmp_path, members, links)
    groups = read_groups(tmp_path)
    assert groups == {member.image_id: member.group for member in members}
    derived, _ = derive_splits(rows, groups=groups, validation_fraction=0.3)
    splits = defaultdict(set)
    for image_id, group in groups.items():
        splits[group].add(derived[image_id].split_clean)
    assert all(len(found - {"excluded"}) == 1 for found in splits.values())


def test_a_folder_without_groups_is_no_audit(tmp_path):
    with pytest.raises(UserError, match=r"^cannot read the groups of an audit from .*groups\.parquet: "):
        read_groups(tmp_path)


def test_the_worst_pairs_contradict_first_then_cross_splits_and_every_kind_has_its_share():
    rows = [audit_row(f"{n}", label=f"{n % 2}", split="test" if n % 3 else "train") for n in range(80)]
    links = [
        near(f"{n}", f"{n + step}", kind) for kind, step in (("near_copy", 2), ("close_features", 1)) for n in range(40)
    ]
    pairs = worst_pairs(rows, links)
    assert [pair.link.kind for pair in pairs] == ["near_copy"] * PAIRS_PER_KIND + ["close_features"] * PAIRS_PER_KIND
    assert all(pair.is_across_splits and not pair.is_conflict for pair in pairs[:PAIRS_PER_KIND])
    assert all(pair.is_conflict and pair.is_across_splits for pair in pairs[PAIRS_PER_KIND:])
    assert worst_pairs(rows, links[::-1]) == pairs
