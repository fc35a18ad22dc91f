"""Pages show the photographs of a dataset that holds them, whichever sets are asked for, from a folder or the Hub."""

import pytest

from builders.build import BuildConfig, build
from builders.publish.config import PublishConfig
from builders.publish.job import publish
from dataset_card.compare.compare import CompareConfig, compare
from dataset_card.compare.page import write_page
from dataset_card.gallery.write import GalleryConfig, write_gallery
from tests.hub_server import HubServer
from tests.hub_server.client import connect


@pytest.fixture(params=["folder", "Hub"])
def dataset(request, photographs, make_run, tmp_path, monkeypatch):
    """Two sets, the first of which holds the photographs."""
    runs = (make_run("one"), make_run("two", text=lambda row: f"Skin {row.image_sha256[:6]}"))
    out = tmp_path / "dataset"
    build(BuildConfig(images=photographs, runs=runs, out=out, with_images=True))
    if request.param == "folder":
        yield str(out)
        return
    with HubServer(tmp_path / "hub") as hub:
        connect(monkeypatch, hub, tmp_path / "home")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        publish(PublishConfig(folder=out, repo_id="me/set", rights_holder="The photographer"))
        yield "me/set"


def test_a_gallery_of_the_second_set_alone_shows_them(dataset, tmp_path):
    summary = write_gallery(GalleryConfig(dataset=dataset, out=tmp_path / "gallery.html", set_names=("two",)))
    assert (summary.sets, summary.n_photographs, summary.n_pictures) == (("two",), 26, 26)


def test_a_gallery_of_the_second_set_takes_photographs_from_here_where_they_are(dataset, photographs, tmp_path):
    config = GalleryConfig(dataset=dataset, out=tmp_path / "gallery.html", set_names=("two",), images=str(photographs))
    assert write_gallery(config).n_pictures == 26


def test_a_comparison_shows_them(dataset, tmp_path):
    said = []
    found = compare(CompareConfig(dataset=dataset, set_a="two", set_b="one"))
    write_page(tmp_path / "compare.html", found, dataset, say=said.append)
    assert said == []
    assert (tmp_path / "compare.html").read_text().count('<img src="data:image/jpeg;base64,') == len(found.different)
