"""The audit on real data: DermNet's facts as others measured them, PAD-UFES-20's contradiction, HAM10000's lesions."""

import pyarrow.parquet as pq
import pytest

from builders.audit.config import AuditConfig
from builders.audit.groups import read_groups
from builders.audit.job import run_audit


def test_the_facts_about_dermnet_are_found_again(shared_data, tmp_path):
    facts = shared_data / "dermnet_index"
    config = AuditConfig(
        images=str(facts / "index.csv"),
        copies=facts / "surplus_copies.csv",
        features=facts / "features_pca50.npz",
        encoders=("clip_vit_b32", "dinov2_vit_b14"),
        out=tmp_path / "audit",
    )
    dermnet, _ = run_audit(config)
    assert (dermnet.contents.n_files, dermnet.balance["train"].n_files, dermnet.balance["test"].n_files) == (
        19559,
        15557,
        4002,
    )
    assert (dermnet.balance["train"].smallest, dermnet.balance["train"].largest) == (212, 1405)
    assert dermnet.byte_copies.n_surplus == 1257
    assert dermnet.byte_copies.n_surplus_per_split == {"train": 664, "test": 593}
    assert dermnet.file_names.n_in_several_labels == 433
    assert dermnet.file_names.lookup["test"].accuracy == 0.9603
    copies = dermnet.file_names.copies["test"]
    assert (copies.n_surplus, copies.n_same_label, copies.n_other_label_only) == (593, 270, 127)
    assert copies.n_same_label_per_label == {"Acne and Rosacea Photos": 270}
    curve = dermnet.features.curves["test"]
    assert (curve.n_test, curve.n_drawn, round(100 * curve.accuracy, 1)) == (3409, 3409, 64.5)
    assert [round(100 * fifth.accuracy, 1) for fifth in curve.quintiles] == [94.4, 81.7, 61.5, 48.4, 36.4]
    assert 2000 < dermnet.groups.n_links["close_features"] < 3000
    assert dermnet.groups.largest <= 10
    assert dermnet.groups.n_links_across_splits["close_features"] > 500


@pytest.mark.slow  # 307 photographs of up to 2,352 px
def test_the_contradiction_in_pad_ufes_20_is_found(shared_data, tmp_path):
    audit, _ = run_audit(AuditConfig(images=str(shared_data / "pad_ufes_20"), out=tmp_path / "audit"))
    (conflict,) = audit.byte_copies.conflicts
    assert sorted(path.partition("/")[2] for path in conflict) == [
        "Basal Cell Carcinoma/PAT_759_1538_566.jpg",
        "Nevus/PAT_759_1433_914.jpg",
    ]
    assert audit.groups.n_conflicts == 1
    assert audit.groups.n_links == {"byte_copy": 1, "near_copy": 0, "close_features": 0}
    assert audit.splits is not None
    assert audit.splits.n_excluded_conflict == 2


@pytest.mark.slow  # 10,015 photographs
def test_near_copies_in_ham10000_show_one_lesion(shared_data, tmp_path):
    folder = shared_data / "ham10000"
    images, metadata = str(folder / "images_200x150.zip"), folder / "metadata.csv"
    audit, _ = run_audit(AuditConfig(images=images, out=tmp_path / "audit", known=metadata, known_column="lesion_id"))
    found = audit.known_groups
    assert (found.n_files, found.n_without) == (10015, 0)
    assert found.precision > 0.95  # of the rest, one pair is one photograph under two lesions
    assert found.recall > 0.03  # most photographs of one lesion differ in place, scale and light
    assert audit.groups.n_links_across_splits["near_copy"] >= 45
    members = pq.read_table(tmp_path / "audit/groups.parquet").to_pylist()
    assert {member["image_id"]: member["group"] for member in members} == read_groups(tmp_path / "audit")
