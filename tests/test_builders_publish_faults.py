"""Publishing while the Hub, the way to it, or the process itself fails: the repository is whole-old or whole-new."""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from builders.build import BuildConfig, build
from builders.dataset_folder import CHECKSUMS, files_in
from builders.errors import UserError
from builders.publish.config import PublishConfig
from builders.publish.job import publish
from builders.publish.patience import ATTEMPTS
from tests.hub_server import DROP, DROP_AFTER, HubServer, RefusalError
from tests.hub_server.client import ME, connect, environment

AT_ONCE = {"Retry-After": "0"}
N_MOMENTS = 40
OVER_XET = ("xet-write-token", "chunk", "xorb-grant", "xorb-put", "xorb-commit", "shard")


@pytest.fixture
def old(photographs, make_run, tmp_path):
    build(BuildConfig(images=photographs, runs=(make_run("old"),), out=tmp_path / "old", shard_bytes=3_000))
    return tmp_path / "old"


@pytest.fixture
def new(photographs, make_run, tmp_path):
    runs = tuple(make_run(name, text=lambda row, name=name: f"{name}: {row.image_id}") for name in ("new", "other"))
    build(BuildConfig(images=photographs, runs=runs, out=tmp_path / "new", shard_bytes=3_000))
    return tmp_path / "new"


def contents(folder):
    return {path: (folder / path).read_bytes() for path in [*files_in(folder), CHECKSUMS]}


def wish(folder, repo_id="me/set", **options):
    return PublishConfig(folder=folder, repo_id=repo_id, **options)


def n_commits(hub, repo_id="me/set"):
    """On main, the Hub's own first one not counted."""
    repo, n, at = hub.dataset(repo_id), -1, hub.dataset(repo_id).head
    while at is not None:
        n, at = n + 1, repo.commits.get(at.parent)
    return n


@pytest.mark.parametrize(
    ("what", "headers"),
    [
        (500, AT_ONCE),
        (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        (429, AT_ONCE),
        (429, {"RateLimit": '"api";r=0;t=0'}),
        (504, {}),
        (DROP, {}),
    ],
)
def test_a_commit_that_fails_is_tried_again(hub, old, new, what, headers):
    publish(wish(old))
    said = []
    hub.fail("commit", what, headers=headers)
    publish(wish(new), said.append)
    assert hub.read("me/set") == contents(new)
    assert n_commits(hub) == 2
    assert len(said) == 1
    assert said[0].endswith(f"(1 of {ATTEMPTS - 1})")


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, old, new):
    publish(wish(old))
    hub.fail("commit", DROP_AFTER)
    done = publish(wish(new, tag="v1"))
    assert n_commits(hub) == 2
    assert done.commit == hub.dataset("me/set").head.oid == hub.dataset("me/set").tags["v1"]


def test_a_pull_request_whose_answer_is_lost_is_not_opened_twice(hub, old, new):
    publish(wish(old))
    hub.fail("commit", DROP_AFTER)
    done = publish(wish(new, pr=True))
    assert [each.number for each in hub.dataset("me/set").pull_requests] == [1]
    assert done.load == "datasets.load_dataset('me/set', revision='refs/pr/1')"


def test_what_others_commit_meanwhile_is_kept(hub, old, new):
    publish(wish(old))

    def meddle():
        operation = CommitOperationAdd("notes.txt", b"theirs")
        HfApi(token=ME).create_commit("me/set", [operation], commit_message="x", repo_type="dataset")

    hub.fail("commit", lambda: in_a_thread(meddle))
    said = []
    publish(wish(new), said.append)
    assert hub.read("me/set") == {**contents(new), "notes.txt": b"theirs"}
    assert n_commits(hub) == 3
    assert said == [f"somebody else committed to the repository meanwhile; trying again in 0.5 s (1 of {ATTEMPTS - 1})"]


def in_a_thread(act):
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def test_of_two_that_publish_at_once_one_is_there_whole(hub, old, new):
    threads = [threading.Thread(target=publish, args=(wish(folder),)) for folder in (old, new, old, new)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.read("me/set") in (contents(old), contents(new))
    publish(wish(new))
    assert hub.read("me/set") == contents(new)


def test_a_hub_that_keeps_failing_is_given_up_on_and_left_as_it_was(hub, old, new):
    publish(wish(old))
    hub.fail("commit", 503, times=1000, headers=AT_ONCE)
    with pytest.raises(UserError) as error:
        publish(wish(new))
    assert str(error.value) == (
        f"the Hub failed with 503, {ATTEMPTS} times; the repository is as it was, or complete\n"
        "  fix: type the same command again: what was sent is not sent twice"
    )
    assert hub.read("me/set") == contents(old)
    hub.faults.clear()
    publish(wish(new))
    assert hub.read("me/set") == contents(new)


def test_a_wait_that_is_too_long_is_left_to_the_person(hub, new):
    hub.fail("whoami", 429, headers={"Retry-After": "3600"})
    with pytest.raises(UserError) as error:
        publish(wish(new))
    assert str(error.value) == (
        "the Hub limits how fast it may be asked and asks to wait 3600 s; the repository is as it was, or complete\n"
        "  fix: later, type the same command again: what was sent is not sent twice"
    )


def test_a_hub_that_is_not_there_is_said_so(new, tmp_path, monkeypatch):
    with HubServer(tmp_path / "gone") as gone:
        connect(monkeypatch, gone, tmp_path / "home")
    monkeypatch.setattr("builders.publish.patience.FIRST_WAIT_S", 0.001)
    with pytest.raises(UserError) as error:
        publish(wish(new))
    assert str(error.value) == (
        f"the Hub cannot be reached (ConnectError), {ATTEMPTS} times: {gone.url}: [Errno 111] Connection refused;"
        " the repository is as it was, or complete\n"
        "  fix: type the same command again: what was sent is not sent twice"
    )


def test_a_card_that_the_hub_refuses_is_said_so(hub, new):
    def refuse():
        raise RefusalError(400, "no such licence")

    hub.fail("validate-yaml", refuse)
    with pytest.raises(UserError) as error:
        publish(wish(new))
    assert str(error.value) == (
        "the Hub refuses the card: Invalid metadata in README.md: no such licence\n"
        "  fix: build the dataset again; nothing was published"
    )
    assert hub.read("me/set") == {}


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, of its LFS upload
@pytest.mark.parametrize("route", ["lfs-batch", "lfs-put", "lfs-part", "lfs-complete", "lfs-verify"])
def test_an_upload_over_lfs_that_breaks_goes_on(hub, new, monkeypatch, route):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    hub.part_bytes = None if route == "lfs-put" else 4_000
    hub.fail(route, DROP)
    publish(wish(new))
    assert hub.read("me/set") == contents(new)
    assert n_commits(hub) == 1


def calls_of_a_clean_publish(hub, old, new):
    publish(wish(old, "me/clean"))
    hub.calls.clear()
    publish(wish(new, "me/clean", tag="v1", public=True, gated=True))
    return [call.route for call in hub.calls]


def calls_to_fail(routes):
    """Number and name of each call; of those that ask for chunks the first, as one is asked for in each file."""
    return [
        (number, route)
        for number, route in enumerate(routes, start=1)
        if route != "chunk" or route != routes[number - 2]
    ]


@pytest.fixture
def as_new(hub, monkeypatch, tmp_path):
    """A function after which neither the Hub nor this machine knows what was published; gives a folder of its own."""
    numbers = itertools.count()

    def forget():
        hub.faults.clear()
        hub.forget_contents()
        home = tmp_path / f"machine-{next(numbers)}"
        connect(monkeypatch, hub, home)
        return home

    return forget


@pytest.mark.slow
@pytest.mark.parametrize("what", [500, 429, DROP, DROP_AFTER])
def test_any_one_call_may_fail(hub, old, new, as_new, what):
    routes = calls_of_a_clean_publish(hub, old, new)
    assert {"whoami", "info", "tree", "resolve", "preupload", "validate-yaml", "commit", "tag", *OVER_XET} < {*routes}
    for number, route in calls_to_fail(routes):
        as_new()
        repo_id = f"me/set-{number}"
        publish(wish(old, repo_id))
        hub.fail("*", what, first=number, headers=AT_ONCE if isinstance(what, int) else {})
        done = publish(wish(new, repo_id, tag="v1", public=True, gated=True))
        where = f"{route}, call {number}"
        assert hub.read(repo_id) == hub.read(repo_id, "v1") == contents(new), where
        assert (n_commits(hub, repo_id), hub.faults[0].n_hits) == (2, 1), where
        repo = hub.dataset(repo_id)
        assert (repo.is_private, repo.gated, repo.head.oid) == (False, "auto", done.commit), where


@pytest.mark.slow
@pytest.mark.parametrize("what", [503, DROP_AFTER])
def test_any_one_call_of_the_first_version_may_fail(hub, new, as_new, what):
    publish(wish(new, "me/clean", tag="v1"))
    routes = [call.route for call in hub.calls]
    assert {"whoami", "info", "create", "preupload", "validate-yaml", "commit", "tag", *OVER_XET} < {*routes}
    for number, route in calls_to_fail(routes):
        as_new()
        repo_id, where = f"me/set-{number}", f"{route}, call {number}"
        hub.fail("*", what, first=number, headers=AT_ONCE if isinstance(what, int) else {})
        publish(wish(new, repo_id, tag="v1"))
        assert hub.read(repo_id) == hub.read(repo_id, "v1") == contents(new), where
        assert (n_commits(hub, repo_id), hub.dataset(repo_id).is_private) == (1, True), where
        assert hub.faults[0].n_hits == 1, where


@pytest.mark.slow
@pytest.mark.parametrize("what", [504, DROP_AFTER])
def test_any_one_call_of_a_pull_request_may_fail(hub, old, new, as_new, what):
    publish(wish(old, "me/clean"))
    hub.calls.clear()
    publish(wish(new, "me/clean", pr=True))
    routes = [call.route for call in hub.calls]
    assert {"whoami", "info", "discussions", "preupload", "validate-yaml", "commit", *OVER_XET} < {*routes}
    for number, route in calls_to_fail(routes):
        as_new()
        repo_id, where = f"me/set-{number}", f"{route}, call {number}"
        publish(wish(old, repo_id))
        hub.fail("*", what, first=number, headers=AT_ONCE if isinstance(what, int) else {})
        publish(wish(new, repo_id, pr=True))
        assert (hub.read(repo_id), n_commits(hub, repo_id)) == (contents(old), 1), where
        assert [each.number for each in hub.dataset(repo_id).pull_requests] == [1], where
        assert hub.read(repo_id, "refs/pr/1") == contents(new), where
        assert hub.faults[0].n_hits == 1, where


class Publisher:
    """A child that forks a process for each publish: one that can be killed, without a second of imports.

    The process is only reaped by `wait`, so its id is nobody else's until then.
    """

    CODE = """
import os, sys
from builders.publish.config import PublishConfig
from builders.publish.job import publish
print(0, flush=True)
for line in sys.stdin:
    xet_cache, config = line.split(maxsplit=1)
    pid = os.fork()
    if not pid:
        os.environ["HF_XET_CACHE"] = xet_cache
        publish(PublishConfig.model_validate_json(config))
        os._exit(0)
    print(pid, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

    def __init__(self, hub, home):
        command = [sys.executable, "-c", self.CODE]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment(hub, home), **pipes)
        self.process.stdout.readline()
        self.pid, self.home = None, home

    def start(self, config, home=None):
        """`home` is what the wheel knows earlier uploads by: the child's own, or that of another machine."""
        self.pid = self.ask(f"{(home or self.home) / 'xet'} {config.model_dump_json()}")

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        return self.ask("wait")

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture
def publisher(hub, tmp_path):
    publisher = Publisher(hub, tmp_path / "child-home")
    yield publisher
    publisher.process.stdin.close()
    publisher.process.wait()
    publisher.process.stdout.close()


def check_whole_then_resume(hub, repo_id, old, new):
    """After a kill: all of the old or all of the new; and the same command again makes it new."""
    hub.settle()
    held = hub.read(repo_id)
    assert held in (contents(old), contents(new)), repo_id
    publish(wish(new, repo_id, tag="v1"))
    assert hub.read(repo_id) == hub.read(repo_id, "v1") == contents(new), repo_id
    assert n_commits(hub, repo_id) == 2, repo_id
    return held == contents(new)


@pytest.mark.slow
def test_killed_at_any_call_the_repository_is_whole_and_the_next_run_completes_it(hub, old, new, publisher, as_new):
    publish(wish(old, "me/clean"))
    hub.calls.clear()
    publisher.start(wish(new, "me/clean", tag="v1"))
    assert publisher.wait() == 0
    routes = [call.route for call in hub.calls]
    assert hub.read("me/clean") == contents(new)
    was_new = []
    for number, _ in calls_to_fail(routes):
        repo_id, home = f"me/set-{number}", as_new()
        publish(wish(old, repo_id))
        hub.fail("*", publisher.kill, first=number)  # the call itself is still answered: its client is gone
        publisher.start(wish(new, repo_id, tag="v1"), home / "child")
        assert publisher.wait() == -signal.SIGKILL
        hub.faults.clear()
        was_new.append((number, check_whole_then_resume(hub, repo_id, old, new)))
    assert was_new == [(number, number > routes.index("commit")) for number, _ in calls_to_fail(routes)]


@pytest.mark.slow
def test_killed_at_random_moments_the_repository_is_whole(hub, old, new, publisher):
    publish(wish(old, "me/clean"))
    started = time.monotonic()
    publisher.start(wish(new, "me/clean"))
    assert publisher.wait() == 0
    whole_s = time.monotonic() - started
    last_s = min(1.1 * whole_s, 1.0)  # on a busy machine it takes long, and 40 times that longer than a test may
    moments = random.Random(0)
    codes = set()
    for number in range(N_MOMENTS):
        repo_id = f"me/set-{number}"
        publish(wish(old, repo_id))
        publisher.start(wish(new, repo_id))
        time.sleep(moments.uniform(0, last_s))
        publisher.kill()
        codes.add(publisher.wait())
        check_whole_then_resume(hub, repo_id, old, new)
    assert -signal.SIGKILL in codes


@pytest.mark.slow
def test_killed_while_the_first_version_is_sent_there_is_nothing_or_all_of_it(hub, new, publisher):
    moments = random.Random(1)
    for number in range(N_MOMENTS // 2):
        repo_id = f"me/set-{number}"
        publisher.start(wish(new, repo_id))
        time.sleep(moments.uniform(0, 0.5))
        publisher.kill()
        publisher.wait()
        hub.settle()
        if ("dataset", repo_id) in hub.repos:
            assert hub.dataset(repo_id).is_private
            assert hub.read(repo_id) in ({}, contents(new))
        publish(wish(new, repo_id))
        assert hub.read(repo_id) == contents(new)
        assert n_commits(hub, repo_id) == 1
