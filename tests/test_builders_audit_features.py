"""Features: read from any encoder's file, near-copies among them, accuracy by distance to train."""

import time
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.neighbors import NearestNeighbors

from builders.audit.config import AuditConfig
from builders.audit.curve import distance_curve
from builders.audit.features import Features, read_features
from builders.audit.neighbours import close_features, nearest_rows, squared_distances
from builders.errors import UserError
from builders.schema import IndexRow, image_id_of


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


ROWS = [audit_row(f"{number}.jpg") for number in range(6)]
PATHS = np.array([row.path for row in ROWS])
VECTORS = np.random.default_rng(0).normal(3, 5, (6, 4)).astype(np.float32)


def read(file, rows=ROWS, copies=None, encoders=()):
    config = AuditConfig(images="photos", out=file.parent / "audit", features=file, encoders=encoders)
    return read_features(config, rows, rows if copies is None else copies)


def clusters(n, width=12, seed=0):
    """`n` rows around 40 centres, and 50 near-copies of the first 50 behind them."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, 4, (40, width))
    rows = (centres[generator.integers(0, 40, n)] + generator.normal(0, 1, (n, width))).astype(np.float32)
    return np.concatenate([rows, rows[:50] + generator.normal(0, 0.02, (50, width)).astype(np.float32)])


@pytest.mark.parametrize("key", ["path", "sha256", "image_sha256", "image_id"])
def test_features_are_matched_by_any_key_in_any_order(tmp_path, key):
    keys = np.array([getattr(row, "image_sha256" if key == "sha256" else key) for row in ROWS])
    np.savez(tmp_path / "f.npz", **{key: keys[::-1]}, encoder=VECTORS[::-1].astype(np.float64))
    features = read(tmp_path / "f.npz")
    centred = VECTORS - VECTORS.mean(axis=0)
    np.testing.assert_allclose(features.vectors, centred / centred.std(), rtol=1e-5)
    assert (features.rows, features.encoders, features.n_missing) == (ROWS, ("encoder",), 0)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 4)])
def test_parquet_lists_are_the_same_features_as_an_npz_array(tmp_path, kind):
    np.savez(tmp_path / "f.npz", path=PATHS, encoder=VECTORS)
    columns = {
        "path": pa.array(PATHS.tolist()),
        "encoder": pa.array(VECTORS.tolist(), kind),
        "label": pa.array(["x"] * 6),
        "width_px": pa.array([1] * 6),
    }
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    np.testing.assert_array_equal(read(tmp_path / "f.parquet").vectors, read(tmp_path / "f.npz").vectors)


def test_each_encoder_is_scaled_by_its_own_deviation_and_only_the_named_ones_are_used(tmp_path):
    np.savez(tmp_path / "f.npz", path=PATHS, small=VECTORS / 1000, large=VECTORS * 1000, other=VECTORS[:, :1])
    features = read(tmp_path / "f.npz", encoders=("large", "small"))
    assert features.encoders == ("large", "small")
    np.testing.assert_allclose(features.vectors[:, :4], features.vectors[:, 4:], rtol=1e-4)
    assert features.vectors[:, :4].std() == pytest.approx(1, rel=1e-4)


def test_files_without_features_are_counted_and_a_byte_copy_lends_its_own(tmp_path):
    np.savez(tmp_path / "f.npz", path=PATHS[:3], encoder=VECTORS[:3])
    copy = audit_row("named-otherwise.jpg", content=ROWS[1].path)
    features = read(tmp_path / "f.npz", rows=[ROWS[0], copy, ROWS[5]], copies=[*ROWS, copy])
    assert [row.path for row in features.rows] == ["0.jpg", "named-otherwise.jpg"]
    assert features.n_missing == 1


def test_features_that_cannot_be_used_are_refused_with_what_is_wrong(tmp_path):
    file = tmp_path / "f.npz"

    def error_of(**arrays):
        np.savez(file, **arrays)
        with pytest.raises(UserError) as caught:
            read(file)
        return str(caught.value).replace(str(file), "FILE")

    assert error_of(names=PATHS, encoder=VECTORS) == (
        "FILE names no files: it has names, encoder\n  fix: add one of the columns path, image_sha256, sha256, image_id"
    )
    assert error_of(path=PATHS, counts=np.ones(6)) == (
        "FILE holds no features: it needs a float array of (files, width) beside 'path'"
    )
    assert error_of(path=PATHS, encoder=VECTORS[:5]) == "FILE: 'encoder' has 5 rows, but 6 files are named"
    assert error_of(path=PATHS, encoder=VECTORS * np.nan) == (
        "FILE: 'encoder' holds values that are not finite\n  fix: compute the features again, in float32"
    )
    assert error_of(path=PATHS, encoder=np.ones((6, 4))) == "FILE: 'encoder' is the same for all files"
    assert error_of(path=np.char.add("a/", PATHS), encoder=VECTORS) == (
        "FILE knows 0 of the 6 files under audit; its first path is 'a/0.jpg', the audit's is '0.jpg'"
    )


def test_one_array_without_names_and_damaged_files_are_named(tmp_path):
    np.save(tmp_path / "f.npy", VECTORS)
    with pytest.raises(UserError) as caught:
        read(tmp_path / "f.npy")
    assert str(caught.value) == (
        f"{tmp_path}/f.npy is one array, and does not tell whose features it holds\n"
        "  fix: save it beside the files' paths: numpy.savez('features.npz', path=paths, encoder=features)"
    )
    np.savez_compressed(tmp_path / "f.npz", path=PATHS, encoder=VECTORS)
    whole = (tmp_path / "f.npz").read_bytes()
    made = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for place in made.integers(0, len(whole), 3):
            damaged[place] = made.integers(256)
        (tmp_path / "f.npz").write_bytes(bytes(damaged))
        try:
            read(tmp_path / "f.npz")
        except UserError:
            continue


def test_an_unknown_encoder_is_named_with_those_there_are(tmp_path):
    np.savez(tmp_path / "f.npz", path=PATHS, clip=VECTORS, dino=VECTORS)
    with pytest.raises(UserError, match=r"^unknown encoder 'resnet'; choose one of: clip, dino$"):
        read(tmp_path / "f.npz", encoders=("resnet",))


def test_nothing_is_unpickled_from_a_features_file(tmp_path):
    class Harm:
        def __reduce__(self):
            return (tmp_path.joinpath("harm").touch, ())

    np.savez(tmp_path / "f.npz", path=PATHS, encoder=np.array([Harm()] * 6, dtype=object))
    with pytest.raises(UserError, match=r"^cannot read features from .*\n  fix: an .npz or .parquet file, no pickle$"):
        read(tmp_path / "f.npz")
    assert not (tmp_path / "harm").exists()


def test_almost_all_nearest_rows_are_found_and_their_distances_are_exact():
    vectors = clusters(3000)
    nearest, distances = nearest_rows(vectors, 10, seed=0)
    exact, order = NearestNeighbors(n_neighbors=11).fit(vectors).kneighbors(vectors)
    assert np.mean([len({*a} & {*b}) / 10 for a, b in zip(nearest, order[:, 1:], strict=True)]) > 0.95
    assert np.isclose(distances, exact[:, 1:], rtol=1e-3).mean() > 0.9
    assert not (nearest == np.arange(len(vectors))[:, None]).any()


def test_near_copies_are_found_in_crowds_and_in_the_open():
    vectors = clusters(2000, width=40)
    noise = np.random.default_rng(1).normal(0, 0.1, (100, vectors.shape[1])).astype(np.float32)
    vectors[:1000] *= 0.2  # a crowd: its strangers are closer to each other than copies are elsewhere
    first = np.concatenate([vectors[:50], vectors[1000:1050]])
    second = first + np.concatenate([noise[:50] * 0.2, noise[50:]])
    found = close_features(np.concatenate([vectors[:2000], second]), 0.6, seed=0)
    copies = {(number if number < 50 else number + 950, number + 2000) for number in range(100)}
    assert copies <= {(pair.first, pair.second) for pair in found}
    assert len(found) < 120


def test_the_seed_decides_and_nothing_else_does():
    vectors = clusters(500)
    assert close_features(vectors, 0.6, seed=1) == close_features(vectors.copy(), 0.6, seed=1)


def test_more_copies_of_one_than_neighbours_are_looked_at_are_still_one_chain():
    vectors = clusters(1000)
    vectors[500:530] = vectors[500]
    pairs = close_features(vectors, 0.6, seed=0)
    assert {pair.first for pair in pairs} | {pair.second for pair in pairs} >= set(range(500, 530))
    assert all(pair.ratio == 0 for pair in pairs if pair.first in range(500, 530))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 20])
def test_a_handful_of_files_has_no_near_copies_by_crowding_but_by_sameness(n):
    vectors = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)
    assert close_features(vectors, 0.6, seed=0) == []
    if n > 2:
        vectors[1] = vectors[0]
        assert [(pair.first, pair.second) for pair in close_features(vectors, 0.6, seed=0)] == [(0, 1)]


def test_the_curve_is_that_of_a_plain_nearest_neighbour():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(900, 6)).astype(np.float32)
    labels = np.where(vectors[:, 0] > 0, "a", "b")
    splits = np.where(np.arange(900) < 600, "train", "test")
    rows = [audit_row(f"{n}", str(splits[n]), str(labels[n])) for n in range(900)]
    curve = distance_curve(Features(rows, vectors, ("x",), "", 0), "test", seed=0)
    distance, order = NearestNeighbors(n_neighbors=1).fit(vectors[:600]).kneighbors(vectors[600:])
    is_right = labels[order[:, 0]] == labels[600:]
    by_distance = is_right[np.argsort(distance[:, 0])].reshape(5, 60).mean(axis=1)
    assert curve is not None
    assert (curve.n_train, curve.n_test, curve.n_drawn) == (600, 300, 300)
    assert curve.accuracy == round(is_right.mean(), 4)
    assert [fifth.accuracy for fifth in curve.quintiles] == by_distance.round(4).tolist()
    assert [fifth.n_files for fifth in curve.quintiles] == [60] * 5


def test_there_is_no_curve_without_train_or_without_labels():
    vectors = np.eye(3, dtype=np.float32)
    test_only = [audit_row(f"{n}", "test") for n in range(3)]
    unlabelled = [audit_row("a"), audit_row("b", "test", ""), audit_row("c", "test", "")]
    assert distance_curve(Features(test_only, vectors, ("x",), "", 0), "test", 0) is None
    assert distance_curve(Features(unlabelled, vectors, ("x",), "", 0), "test", 0) is None


def test_distances_are_never_negative():
    vectors = np.full((4, 50), 1e3, np.float32)
    assert (squared_distances(vectors, vectors) >= 0).all()


@pytest.mark.slow  # a clock
def test_the_search_does_not_grow_with_the_square():
    def seconds(n):
        vectors = clusters(n, width=64)
        began = time.process_time()
        close_features(vectors, 0.6, seed=0)
        return time.process_time() - began

    small = min(seconds(4000) for _ in range(3))
    assert min(seconds(32000) for _ in range(2)) < 40 * small  # 8 ** 1.5 is 23, the square would be 64
