"""Publishing to the test Hub: what goes where, what is refused, what is kept."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from PIL import Image
from typer.testing import CliRunner

from builders.dataset_folder import CHECKSUMS, write_checksums
from builders.publish import cli
from builders.publish.config import PublishConfig
from builders.publish.images import find_images
from builders.publish.job import Published, preview, publish
from dataset_card.card import write_card
from dataset_card.choices import CardChoices
from tests.damage import write_odd_integers
from tests.hub_server.client import ME, connect
from tests.publishing import contents, put, refusal, wish


def test_a_new_repository_is_private_and_holds_exactly_the_folder(hub, make_dataset):
    folder = make_dataset("tiny-doctor", "other", card=True)
    done = publish(wish(folder))
    repo = hub.dataset("me/set")
    assert repo.is_private
    assert hub.read("me/set") == contents(folder)
    assert done == Published(
        repo_id="me/set",
        repo_type="dataset",
        url=f"{hub.url}/datasets/me/set",
        commit=repo.head.oid,
        tag=None,
        pull_request=None,
        is_private=True,
        n_files_sent=len(contents(folder)),
        n_files_removed=0,
        n_files_kept=0,
        n_new_bytes=sum(map(len, contents(folder).values())),
        load="datasets.load_dataset('me/set')",
    )
    assert len(repo.commits) == 2  # the Hub's own first one, and ours
    assert repo.head.title.startswith("vl-dermnet publish: 2 description sets (")
    assert repo.head.message.startswith(
        "Description sets, the default first: tiny-doctor, other\n\nsha256 of SHA256SUMS: "
    )


def test_the_same_again_makes_no_commit(hub, make_dataset):
    folder = make_dataset("tiny-doctor")
    first, again = publish(wish(folder)), publish(wish(folder))
    assert again.commit == first.commit
    assert (again.n_files_sent, again.n_new_bytes) == (0, 0)
    assert [call.route for call in hub.calls].count("commit") == 1


def test_a_dry_run_tells_what_is_then_sent_and_changes_nothing(hub, make_dataset):
    publish(wish(make_dataset("tiny-doctor")))
    put({"notes.txt": b"mine"})
    folder = make_dataset("tiny-doctor", "other")
    hub.calls.clear()
    shown = preview(wish(folder))
    assert {call.method for call in hub.calls} == {"GET"}
    fates = {path: fate for fate, path, _ in shown.files}
    assert fates["notes.txt"] == "keep"
    assert fates["tiny-doctor/train-00000-of-00001.parquet"] == "same"
    assert fates["other/train-00000-of-00001.parquet"] == "add"
    assert fates["README.md"] == fates[CHECKSUMS] == "replace"
    sent = [path for fate, path, _ in shown.files if fate in ("add", "replace")]
    assert shown.n_new_bytes == sum((folder / path).stat().st_size for path in sent)
    done = publish(wish(folder))
    assert (done.n_files_sent, done.n_new_bytes, done.n_files_kept) == (len(sent), shown.n_new_bytes, 1)
    assert hub.read("me/set") == {**contents(folder), "notes.txt": b"mine"}


def test_a_dry_run_makes_no_repository_and_needs_no_token(hub, make_dataset, monkeypatch, tmp_path):
    connect(monkeypatch, hub, tmp_path / "home", token="")
    shown = preview(wish(make_dataset("tiny-doctor")))
    assert not shown.is_there
    assert shown.n_new_bytes == shown.n_total_bytes
    assert hub.repos == {}


def run(*arguments):
    app = typer.Typer()
    app.command()(cli.publish)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_prints_what_was_done_and_how_to_load_it(hub, make_dataset):
    folder = make_dataset("tiny-doctor", card=True)
    shown = run(folder, "me/set", "--dry-run")
    total = sum(map(len, contents(folder).values()))
    lines = shown.stdout.splitlines()
    assert lines[0] == "dry run: nothing is changed in the private dataset repository me/set, which would be made"
    assert f"add     {(folder / 'README.md').stat().st_size:>15,}  README.md" in lines
    assert lines[-2] == f"to send: {total:,} of {total:,} bytes, in {len(contents(folder))} files"
    done = run(folder, "me/set", "--tag", "v1")
    assert done.stdout == (
        f"private: {hub.url}/datasets/me/set\n"
        f"commit: {hub.dataset('me/set').head.oid}\n"
        f"sent: {len(contents(folder))} files, {total:,} bytes at most\n"
        "checked: every file is there; small ones were read back, of large ones the Hub states the same sha256\n"
        "load it: datasets.load_dataset('me/set', revision='v1')\n"
    )
    again = run(folder, "me/set", "--json")
    assert json.loads(again.stdout) == asdict(publish(wish(folder)))
    for result in (shown, done, again):
        assert result.exit_code == 0
        assert ME not in result.output


def test_images_are_refused_until_somebody_answers_for_them(hub, make_dataset):
    folder = make_dataset("tiny-doctor", with_images=True)
    assert refusal(wish(folder)) == (
        f"{folder} holds images, in 2 of its files: tiny-doctor/test-00000-of-00001.parquet,"
        " tiny-doctor/train-00000-of-00001.parquet; to publish them is to pass them on, and most collections do not"
        " allow it\n"
        '  fix: build without --with-images; or, if you hold the rights: --i-have-the-rights "YOUR NAME"'
    )
    assert hub.calls == []
    publish(wish(folder, rights_holder="Dermatology, Example Hospital"))
    said = "Images are published by Dermatology, Example Hospital, who states to hold the rights to them."
    assert hub.dataset("me/set").head.message.endswith(said)


def test_images_are_found_however_they_are_wrapped(tmp_path):
    picture = Image.new("RGB", (4, 4))
    (tmp_path / "assets").mkdir()
    for name in ("photo.jpg", "photo.webp", "photo.tiff", "assets/plot.png", "assets/photo.jpg"):
        picture.save(tmp_path / name)
    shutil.copy(tmp_path / "photo.jpg", tmp_path / "photo.txt")
    shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "assets")
    (tmp_path / "gallery.html").write_bytes(b"x" * 3_000_000 + b'<img src="data:image/jpeg;base64,...">')
    (tmp_path / "plot.html").write_bytes(b'<img src="data:image/svg+xml;base64,...">')
    (tmp_path / "README.md").write_bytes(b"# no image")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "none.parquet").write_bytes(b"not Parquet")
    write_odd_integers(tmp_path / "odd.parquet")
    pq.write_table(pa.table({"a": [1], "b": [[{"c": "text"}]]}), tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1], "b": [[{"c": b"pixels"}]]}), tmp_path / "bytes.parquet")
    found = find_images(tmp_path, sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")))
    assert set(found) == {
        "assets/photo.jpg",
        "bytes.parquet",
        "gallery.html",
        "none.parquet",
        "odd.parquet",
        "photo.jpg",
        "photo.tiff",
        "photo.txt",
        "photo.webp",
        "zipped.zip",
    }


def test_a_damaged_folder_is_not_published(hub, make_dataset):
    folder = make_dataset("tiny-doctor")
    shard = folder / "tiny-doctor" / "train-00000-of-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert f"{folder} is not as it was built, so it was not published:\n  tiny-doctor/train-" in refusal(wish(folder))
    assert hub.calls == []


@pytest.mark.parametrize("place", ["nowhere", "photographs"])
def test_what_is_no_folder_of_ours_is_said_so(photographs, tmp_path, place):
    assert refusal(wish(tmp_path / place)).startswith(
        f"{tmp_path / place} is neither a dataset folder (it holds no provenance/) nor a model folder"
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"repo_id": "set"}, "'set' does not say whose repository it is\n  fix: OWNER/set, OWNER being your account"),
        ({"repo_id": "me/a b"}, "'me/a b' cannot name a repository: "),
        ({"gated": True}, "--gated asks people to share their name before they may read a public repository; "),
        ({"pr": True, "tag": "v1"}, "--pr only proposes a change: it cannot gate or tag the repository\n"),
        ({"tag": "main"}, "'main' cannot be a tag: "),
        ({"tag": "v 1"}, "'v 1' cannot be a tag: use letters, digits, '.', '_' and '-', like v1.0"),
        ({"rights_holder": " \n"}, "--i-have-the-rights needs the name of a person or institution in one line"),
    ],
)
def test_wishes_that_cannot_be_granted_are_refused_at_once(tmp_path, options, told):
    for act in (publish, preview):
        assert refusal(
            PublishConfig.model_validate({"folder": tmp_path, "repo_id": "me/set", **options}), act
        ).startswith(told)


def test_a_card_that_names_another_repository_is_refused(hub, make_dataset):
    folder, said = make_dataset("one"), []
    write_card(folder, CardChoices(repo_id="me/other"))
    again = "build it again with --repo me/set"
    for act in (preview, publish):
        assert refusal(wish(folder), act) == (
            f"the card of {folder} tells its readers to load me/other, not me/set\n  fix: {again}; or publish it as"
            " me/other"
        )
    assert not hub.repos
    write_card(folder, CardChoices(repo_id="me/set"))
    publish(wish(folder), said.append)
    assert said == []
    write_card(folder, CardChoices())
    publish(wish(folder), said.append)
    assert said == [f"its card names no repository and says OWNER/NAME where readers look for me/set: {again}"]


def test_files_of_others_stay(hub, make_dataset):
    HfApi(token=ME).create_repo("me/set", repo_type="dataset", private=True)
    put({"notes/todo.txt": b"mine", "train.csv": b"a,b\n"})
    folder = make_dataset("tiny-doctor")
    assert publish(wish(folder)).n_files_kept == 2
    assert hub.read("me/set") == {**contents(folder), "notes/todo.txt": b"mine", "train.csv": b"a,b\n"}


def test_a_card_that_somebody_wrote_is_only_replaced_on_demand(hub, make_dataset):
    HfApi(token=ME).create_repo("me/set", repo_type="dataset", private=True)
    put({"README.md": b"---\nlicense: mit\n---\nmine"})
    folder = make_dataset("tiny-doctor")
    assert refusal(wish(folder)) == (
        "me/set holds other versions of 1 files, and no publish wrote them: README.md\n"
        f"  fix: save what is worth keeping of them ({hub.url}/datasets/me/set/tree/main), then add --overwrite;"
        " the repository's history keeps them"
    )
    assert hub.read("me/set") == {"README.md": b"---\nlicense: mit\n---\nmine"}
    publish(wish(folder, overwrite=True))
    assert hub.read("me/set") == contents(folder)
    put({"README.md": b"---\nlicense: mit\n---\nedited on the Hub"})
    assert "no publish wrote them: README.md" in refusal(wish(folder))


def test_rows_of_others_are_not_mixed_in(hub, make_dataset):
    folder = make_dataset("tiny-doctor")
    publish(wish(folder))
    put({"tiny-doctor/train-extra.parquet": (folder / "tiny-doctor/test-00000-of-00001.parquet").read_bytes()})
    assert refusal(wish(folder)) == (
        "me/set holds files that publish did not write, and load_dataset would take them for rows of this dataset:"
        " tiny-doctor/train-extra.parquet\n"
        f"  fix: move them to another folder or repository: {hub.url}/datasets/me/set/tree/main"
    )


def test_what_the_version_before_wrote_and_this_one_lacks_is_removed(hub, make_dataset):
    both = make_dataset("tiny-doctor", "other", folder="both", shard_bytes=3_000)
    publish(wish(both))
    put({"other/notes.txt": b"mine"})
    one = make_dataset("tiny-doctor")
    done = publish(wish(one))
    gone = set(contents(both)) - set(contents(one))
    assert "other/train-00000-of-00003.parquet" in gone
    assert done.n_files_removed == len(gone)
    assert hub.read("me/set") == {**contents(one), "other/notes.txt": b"mine"}


def test_a_list_of_checksums_that_is_not_ours_removes_nothing(hub, make_dataset):
    HfApi(token=ME).create_repo("me/set", repo_type="dataset", private=True)
    theirs = {
        "data/a.csv": b"a",
        CHECKSUMS: b"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  data/a.csv\n",
    }
    put(theirs)
    folder = make_dataset("tiny-doctor")
    assert "no publish wrote them: SHA256SUMS" in refusal(wish(folder))
    publish(wish(folder, overwrite=True))
    assert hub.read("me/set")["data/a.csv"] == b"a"


def test_a_file_that_changed_since_is_not_removed_unasked(hub, make_dataset):
    publish(wish(make_dataset("tiny-doctor", "other")))
    put({"provenance/other.json": b"{}"})
    one = make_dataset("tiny-doctor")
    assert "holds other versions of 1 files, and no publish wrote them: provenance/other.json" in refusal(wish(one))


def test_without_a_network_it_is_said_so(hub, make_dataset, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refusal(wish(make_dataset("tiny-doctor"))) == (
        "HF_HUB_OFFLINE is set, so nothing can be published\n  fix: unset HF_HUB_OFFLINE"
    )


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "image_backbone").mkdir(parents=True)
    (folder / "config.json").write_text('{"format": "vl-dermnet-model"}')
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (folder / "fusion.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (folder / "image_backbone" / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    return folder


def test_a_model_folder_is_published_too(hub, model):
    config = PublishConfig(folder=model, repo_id="me/model")
    done = publish(config)
    assert (done.repo_type, done.load) == ("model", "huggingface_hub.snapshot_download('me/model')")
    published = hub.read("me/model", repo_type="model")
    write_checksums(model)  # as publish has listed them
    assert published == contents(model)
    (model / "fusion.safetensors").write_bytes(b"other weights")
    assert "not what its SHA256SUMS says: fusion.safetensors" in refusal(config)
    (model / CHECKSUMS).unlink()
    assert publish(config).n_files_sent == 2  # the weights and the list
    assert publish(config).n_files_sent == 0


def test_a_repository_that_is_gone_meanwhile_is_said_so(hub, make_dataset):
    hub.fail("validate-yaml", lambda: hub.repos.clear())
    told = refusal(wish(make_dataset("tiny-doctor")))
    assert told.startswith("this account may not do this with me/set: ")
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token=ME).dataset_info("me/set")


def test_a_folder_that_changes_while_it_is_sent_is_not_committed(hub, make_dataset):
    folder = make_dataset("tiny-doctor")
    shard = folder / "tiny-doctor" / "train-00000-of-00001.parquet"
    hub.fail("preupload", lambda: Path(shard).write_bytes(b"something else"))
    assert refusal(wish(folder)) == (
        "tiny-doctor/train-00000-of-00001.parquet changed while it was being published; nothing was committed\n"
        "  fix: publish again"
    )
    assert hub.read("me/set") == {}
