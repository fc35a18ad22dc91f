"""Publishing while Xet's own store fails, at each of its routes: the repository is whole-old or whole-new.

The stock wheel is patient by itself; where it gives up, `publish` tries the whole again, and then tells a person.
"""

import pytest
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.publish.job import publish
from builders.publish.patience import ATTEMPTS
from tests.hub_server import CUT, DROP, DROP_AFTER, DROP_HALFWAY, SHORT
from tests.hub_server.client import ME, connect
from tests.publishing import contents, wish

ROUTES = ["xet-write-token", "chunk", "xorb-grant", "xorb-put", "xorb-commit", "xorb-post", "shard"]
FAULTS = [500, 503, 429, DROP, DROP_HALFWAY, DROP_AFTER, CUT, SHORT]
# Without a bucket the wheel goes on over the older route, without an answer on chunks it sends them all, and it does
# not read what a bucket or a commit says beside its status: these faults may last for ever.
HARMLESS = {"chunk", "xorb-put", ("xorb-commit", CUT), ("xorb-commit", SHORT)}
TOLD = """\
the files could not be sent over Xet, {n} times: {url}: {words}; the repository is as it was, or complete
  fix: type the same command again: what was sent is not sent twice"""


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr("builders.publish.patience.FIRST_WAIT_S", 0.001)
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture
def make_texts(built_datasets, photographs, make_run):
    """A function that gives a dataset of texts of its own, built once for all tests: none of them changes it."""
    root, known = built_datasets

    def make(*names):
        if names not in known:
            runs = [make_run(name, text=lambda row, name=name: f"{name}: {row.image_id}") for name in names]
            known[names] = root / "-".join(names)
            build(BuildConfig(images=photographs, runs=runs, out=known[names], shard_bytes=3_000))
        return known[names]

    return make


@pytest.fixture
def old(make_texts):
    return make_texts("old")


@pytest.fixture
def new(make_texts):
    return make_texts("new", "other")


def routes_of(hub):
    return [call.route for call in hub.calls]


def n_sent(hub):
    """Xorbs that were taken in."""
    return len([call for call in hub.calls if call.route in ("xorb-put", "xorb-post") and call.status == 200])


def check_nothing_is_told(hub, texts):
    """No token, of the account's or of the store's."""
    assert hub.cas.tokens
    for token in (ME, *hub.cas.tokens):
        assert token not in "".join(texts)


def check_a_fault_that_passes(hub, old, new, route, what, capfd):
    hub.knows_grants = route != "xorb-post"
    publish(wish(old))
    hub.calls.clear()
    said = []
    hub.fail(route, what)
    done = publish(wish(new), said.append)
    assert hub.faults[0].n_hits == 1
    assert hub.read("me/set") == contents(new)
    assert done.commit == hub.dataset("me/set").head.oid
    assert routes_of(hub).count("commit") == 1
    # only where an answer is cut to something whole does the wheel give up at once
    assert len(said) == ((route, what) == ("shard", SHORT))
    check_nothing_is_told(hub, [*said, *capfd.readouterr()])


@pytest.mark.parametrize(
    ("route", "what"),
    [
        ("xet-write-token", 503),
        ("xorb-put", DROP_HALFWAY),
        ("xorb-commit", DROP_AFTER),
        ("shard", SHORT),
    ],
)
def test_a_transfer_that_fails_once_is_finished(hub, old, new, route, what, capfd):
    check_a_fault_that_passes(hub, old, new, route, what, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize("route", ROUTES)
def test_a_transfer_that_fails_once_is_finished_at_each_route(hub, old, new, route, what, capfd):
    check_a_fault_that_passes(hub, old, new, route, what, capfd)


def check_a_fault_that_stays(hub, old, new, route, what, capfd):
    hub.knows_grants = route != "xorb-post"
    publish(wish(old))
    hub.calls.clear()
    said = []
    hub.fail(route, what, times=10_000)
    if route in HARMLESS or (route, what) in HARMLESS:
        publish(wish(new), said.append)
        assert said == []
    else:
        with pytest.raises(UserError) as error:
            publish(wish(new), said.append)
        words = str(error.value).partition(f"{hub.url}: ")[2].partition("; the repository")[0]
        assert str(error.value) == TOLD.format(n=ATTEMPTS, url=hub.url, words=words)
        assert words
        assert len(said) == ATTEMPTS - 1
        assert hub.read("me/set") == contents(old)
        assert "commit" not in routes_of(hub)
        said.append(str(error.value))
    assert hub.faults[0].n_hits > 0
    hub.faults.clear()
    publish(wish(new), said.append)
    assert hub.read("me/set") == contents(new)
    assert routes_of(hub).count("commit") == 1
    check_nothing_is_told(hub, [*said, *capfd.readouterr()])


def test_a_transfer_that_keeps_failing_is_given_up_on_and_left_as_it_was(hub, old, new, capfd):
    check_a_fault_that_stays(hub, old, new, "shard", 403, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("what", [503, 401, DROP_HALFWAY, SHORT])
@pytest.mark.parametrize("route", ROUTES)
def test_a_transfer_that_keeps_failing_at_each_route(hub, old, new, route, what, capfd):
    check_a_fault_that_stays(hub, old, new, route, what, capfd)


def test_what_a_given_up_publish_has_sent_is_not_sent_again(hub, old, new, monkeypatch):
    # what it notes every 20 s of a long upload, it notes at once
    monkeypatch.setenv("HF_XET_DATA_SESSION_XORB_METADATA_FLUSH_INTERVAL", "1ms")
    publish(wish(old))
    hub.fail("shard", 503, times=10_000)
    hub.calls.clear()
    with pytest.raises(UserError):
        publish(wish(new))
    assert n_sent(hub) == 1
    assert hub.read("me/set") == contents(old)
    hub.faults.clear()
    hub.calls.clear()
    before = hub.storage.xet_bytes
    publish(wish(new))
    assert hub.read("me/set") == contents(new)
    assert n_sent(hub) == 0
    assert hub.storage.xet_bytes - before < 8_000  # the list of 8 files, of 68 kB


def test_what_is_published_already_is_not_sent_to_another_repository(hub, new, tmp_path, monkeypatch):
    publish(wish(new))
    connect(monkeypatch, hub, tmp_path / "other-machine")
    hub.calls.clear()
    publish(wish(new, repo_id="me/second"))
    assert hub.read("me/second") == contents(new)
    assert n_sent(hub) == 0
    assert [call.status for call in hub.calls if call.route == "chunk"].count(200) > 0


@pytest.mark.parametrize("what", [SHORT, pytest.param(CUT, marks=pytest.mark.slow)])
def test_an_answer_on_chunks_that_is_cut_off_costs_no_more_than_bytes(hub, new, tmp_path, monkeypatch, what):
    publish(wish(new))
    connect(monkeypatch, hub, tmp_path / "other-machine")
    hub.fail("chunk", what)
    publish(wish(new, repo_id="me/second"))
    assert hub.faults[0].n_hits == 1
    assert hub.read("me/second") == contents(new)
