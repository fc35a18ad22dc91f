"""The test Hub's chunk store over HTTP, asked by the stock Xet wheel and by hand: what it stores, gives and refuses."""

import hashlib
import importlib
import json
import random
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from tests.hub_server import CUT, DROP, DROP_AFTER, SHORT
from tests.hub_server.cas.crc64 import crc64
from tests.hub_server.cas.xorbs import read_chunks
from tests.hub_server.client import ME, connect

hf_xet = importlib.import_module("hf_xet")  # compiled, without types
NOISE = random.Random(0).randbytes(1_500_000)
TEXT = "".join(f"{number} of many lines, all alike\n" for number in range(40_000)).encode()
CONTENT = NOISE + TEXT
WEIGHTS = np.random.default_rng(0).normal(0, 0.02, 200_000).astype("<f4").tobytes()  # grouped by bytes, then LZ4
UPLOAD = ("chunk", "xorb-grant", "xorb-put", "xorb-commit", "xorb-post", "shard")
DOWNLOAD = ("reconstruction", "xorb-get")


@pytest.fixture
def api(hub):
    api = HfApi(token=ME)
    api.create_repo("me/set", repo_type="dataset", private=True)
    return api


def add(api, files):
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_commit("me/set", operations, commit_message="files", repo_type="dataset")


def fetch(api, path, cache):
    return Path(api.hf_hub_download("me/set", path, repo_type="dataset", cache_dir=cache)).read_bytes()


def xet_calls(hub):
    return [call.route for call in hub.calls if call.route in UPLOAD + DOWNLOAD]


def ask(hub, method, path, body=None, **headers):
    """Status and bytes of one answer, asked without any client."""
    request = urllib.request.Request(f"{hub.url}{path}", body, headers, method=method)
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def bearer(hub, scope):
    return {"Authorization": f"Bearer {hub.cas.new_token(scope)}"}


def bit_by_bit(content):
    state = 2**64 - 1
    for byte in content:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x9A6C9329AC4BC9B5 if state & 1 else 0)
    return state ^ (2**64 - 1)


def test_the_checksum_is_crc_64_nvme():
    assert crc64(b"123456789") == 0xAE8B14860A799888  # the catalogue's check value
    for n_bytes in (0, 1, 65_535, 65_536, 70_001):
        assert crc64(NOISE[:n_bytes]) == bit_by_bit(NOISE[:n_bytes])


@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_goes_and_comes_over_the_newer_and_the_older_routes(hub, api, tmp_path, is_new):
    hub.knows_grants = hub.knows_v2 = is_new
    add(api, {"a.bin": CONTENT})
    sent = [call.route for call in hub.calls if call.route in UPLOAD and call.status < 300]
    assert sent == (["xorb-grant", "xorb-put", "xorb-commit", "shard"] if is_new else ["xorb-post", "shard"])
    assert len(NOISE) < hub.storage.xet_bytes < 0.9 * len(CONTENT)
    hub.calls.clear()
    assert fetch(api, "a.bin", tmp_path / "cache") == CONTENT
    assert {call.route for call in hub.calls if call.status == 206} == {"xorb-get"}
    versions = [call.path[:3] for call in hub.calls if call.route == "reconstruction" and call.status == 200]
    assert {*versions} == {"/v2" if is_new else "/v1"}
    assert hub.read("me/set")["a.bin"] == CONTENT


def test_the_hash_of_a_file_is_the_wheels_own_and_its_sha256_is_that_of_its_bytes(hub, api, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    add(api, {"a.bin": CONTENT})
    entry = hub.dataset("me/set").head.tree["a.bin"]
    (told,) = hf_xet.hash_files([str(tmp_path / "a.bin")])
    assert entry.xet_hash == told.hash
    assert hub.cas.files[entry.xet_hash].sha256 == entry.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_a_file_comes_back_whole_however_its_chunks_are_compressed(hub, api, tmp_path):
    for name, content in {"noise": NOISE, "text": TEXT, "weights": WEIGHTS}.items():
        add(api, {f"{name}.bin": content})
        assert fetch(api, f"{name}.bin", tmp_path / "cache") == hub.read("me/set")[f"{name}.bin"] == content
    chunks = [chunk for path in hub.cas.xorbs.iterdir() for chunk in read_chunks(path.read_bytes())]
    assert {chunk.compression for chunk in chunks} == {0, 1, 2}


def test_any_range_of_a_file_can_be_asked_for(hub, api):
    add(api, {"a.bin": NOISE})
    add(api, {"b.bin": NOISE[:700_000] + TEXT + NOISE[600_000:]})  # of two xorbs, the older one in two stretches
    whole = NOISE[:700_000] + TEXT + NOISE[600_000:]
    entry = hub.dataset("me/set").head.tree["b.bin"]
    info = hf_xet.XetFileInfo(entry.xet_hash, entry.size)
    token = {"token": hub.cas.new_token("read"), "token_expiry_unix_secs": 4_000_000_000}
    group = hf_xet.XetSession().new_download_stream_group(endpoint=hub.url, **token)
    numbers = random.Random(1)
    for _ in range(12):
        start, end = sorted(numbers.sample(range(len(whole) + 1), 2))
        assert b"".join(group.download_stream(info, start=start, end=end)) == whole[start:end]
    path = f"/v2/reconstructions/{entry.xet_hash}"
    assert ask(hub, "GET", path, Range=f"bytes={len(whole)}-", **bearer(hub, "read"))[0] == 416


def test_another_machine_learns_what_is_here(hub, api, monkeypatch, tmp_path):
    add(api, {"a.bin": NOISE})
    before = hub.storage.xet_bytes
    connect(monkeypatch, hub, tmp_path / "other-machine")
    hub.calls.clear()
    add(api, {"b.bin": NOISE + b"and more"})
    assert next(call.status for call in hub.calls if call.route == "chunk") == 200
    assert hub.storage.xet_bytes - before < 150_000  # a chunk and a list, of 1.5 MB
    assert hub.read("me/set")["b.bin"] == NOISE + b"and more"


ANY = "0" * 64


def bytes_of(digest):
    """As it stands in a shard: words of 64 bits with their last byte first."""
    return b"".join(bytes.fromhex(digest[at : at + 16])[::-1] for at in range(0, 64, 16))


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", f"/v1/xorb-grants/default/{ANY}", "write"),
        ("POST", f"/v1/xorb-commits/default/{ANY}/grant/{ANY[:32]}", "write"),
        ("POST", f"/v1/xorbs/default/{ANY}", "write"),
        ("POST", "/v1/shards", "write"),
        ("POST", "/v2/shards", "write"),
        ("GET", f"/v1/chunks/default-merkledb/{ANY}", "read"),
        ("GET", f"/v2/reconstructions/{ANY}", "read"),
    ],
)
def test_the_store_wants_its_own_token(hub, method, path, scope):
    body = b"{}" if method == "POST" else None
    assert ask(hub, method, path, body)[0] == 401
    assert ask(hub, method, path, body, Authorization=f"Bearer {ME}")[0] == 401
    if scope == "write":
        assert ask(hub, method, path, body, **bearer(hub, "read"))[0] == 403
    else:
        assert ask(hub, method, path, body, **bearer(hub, "write"))[0] == 404


def test_what_is_no_xorb_or_no_shard_is_refused(hub, api):
    add(api, {"a.bin": NOISE})
    (path,) = hub.cas.xorbs.iterdir()
    xorb, token = path.read_bytes(), bearer(hub, "write")
    before = hub.storage.xet_bytes
    for bad in (b"", b"\1" + xorb[1:], xorb[:-1], xorb + b"\0\0\0"):
        assert ask(hub, "POST", f"/v1/xorbs/default/{ANY}", bad, **token)[0] == 400
    (path,) = hub.cas.shards.iterdir()
    shard = path.read_bytes()
    at = shard.index(bytes_of(hub.dataset("me/set").head.tree["a.bin"].sha256))
    for bad in (b"", shard[:-48], b"X" + shard[1:], shard[:at] + bytes(32) + shard[at + 32 :]):
        assert ask(hub, "POST", "/v1/shards", bad, **token)[0] == 400
    assert hub.storage.xet_bytes == before


def test_a_grant_is_for_its_own_bytes(hub):
    token = bearer(hub, "write")
    wish = {"length": 3, "checksum": {"algo": "crc64nvme", "value": str(crc64(b"abc"))}}
    status, told = ask(hub, "POST", f"/v1/xorb-grants/default/{ANY}", json.dumps(wish).encode(), **token)
    granted = json.loads(told)
    path, headers = granted["url"].removeprefix(hub.url), granted["headers"]
    commit = f"/v1/xorb-commits/default/{ANY}/grant/{granted['id']}"
    assert status == 201
    assert ask(hub, "POST", commit, b"", **token)[0] == 404  # nothing was sent yet
    assert ask(hub, "PUT", path, b"abd", **headers)[0] == 400
    assert ask(hub, "PUT", path, b"abc")[0] == 403
    assert ask(hub, "PUT", path, b"abc", **headers)[0] == 200
    assert ask(hub, "PUT", path, b"abc", **headers)[0] == 412
    assert ask(hub, "POST", commit, b"", **token)[0] == 400  # it is no xorb


@pytest.mark.slow
@pytest.mark.parametrize("what", [500, 503, 429, DROP, DROP_AFTER, SHORT, CUT])
@pytest.mark.parametrize("route", DOWNLOAD)
def test_a_download_over_xet_that_breaks_goes_on_or_leaves_no_file(hub, api, monkeypatch, tmp_path, route, what):
    add(api, {"a.bin": CONTENT})
    hub.fail(route, what)
    assert fetch(api, "a.bin", tmp_path / "once") == CONTENT
    assert hub.faults.pop().n_hits == 1
    connect(monkeypatch, hub, tmp_path / "other-machine")
    hub.fail(route, what, times=1000)
    with pytest.raises((RuntimeError, ConnectionError)):
        fetch(api, "a.bin", tmp_path / "never")
    assert hub.faults.pop().n_hits > 1
    assert list((tmp_path / "never").rglob("a.bin")) == []
    assert fetch(api, "a.bin", tmp_path / "never") == CONTENT


def test_a_link_that_has_expired_is_asked_for_again(hub, api, tmp_path):
    add(api, {"a.bin": NOISE})
    hub.fail("xorb-get", 403)
    hub.calls.clear()
    assert fetch(api, "a.bin", tmp_path / "cache") == NOISE
    assert xet_calls(hub)[:4] == ["reconstruction", "xorb-get", "reconstruction", "xorb-get"]
