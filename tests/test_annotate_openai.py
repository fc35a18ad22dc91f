"""The openai engine against real HTTP servers on loopback: balanced, patient, and stubborn."""

import base64
import hashlib
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from annotate.config import AnnotateConfig
from annotate.engines import EngineConfig, Feed, Request
from annotate.engines.openai import OpenAIEngine
from annotate.job import plan_of, run
from annotate.models import Model
from builders.errors import UserError
from builders.index import index_images
from builders.run_folder import read_run

pytest.importorskip("openai")
N_IMAGES = 24


class Server(ThreadingHTTPServer):
    """Answers with a hash of the pixels it was sent, unless `behave` says something else.

    `behave(n)` is asked for the n-th chat request, from 0: an HTTP status, "hang", "drop", or None for an answer.
    """

    daemon_threads = True

    def __init__(self, behave=lambda n: None, model="served"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.model, self.n_asked, self.lock = behave, model, 0, threading.Lock()
        self.prompts, self.breaks, self.n_blind_tokens = set(), lambda data_url: False, 50
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A dropped connection is what a test asked for; say nothing."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Stay silent."""

    def do_GET(self):
        self.reply(200, {"object": "list", "data": [{"id": self.server.model, "object": "model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["max_tokens"] == 1:  # the engine looks whether this server sees
            n_tokens = 300 if isinstance(body["messages"][0]["content"], list) else self.server.n_blind_tokens
            usage = {"prompt_tokens": n_tokens, "completion_tokens": 1, "total_tokens": n_tokens + 1}
            self.reply(200, reply_with("A", usage))
            return
        with self.server.lock:
            number, self.server.n_asked = self.server.n_asked, self.server.n_asked + 1
        what = 500 if self.server.breaks(body["messages"][0]["content"][0]["image_url"]["url"]) else None
        what = what or self.server.behave(number)
        if what == "hang":
            time.sleep(3)
        elif what == "drop":
            self.close_connection = True
            self.connection.close()
        elif what is not None:
            self.reply(what, {"error": {"message": f"status {what}"}}, {"Retry-After": "0.02"})
        else:
            image, words = body["messages"][0]["content"]
            self.server.prompts.add(words["text"])
            self.reply(200, answer(image["image_url"]["url"]))

    def reply(self, status, value, headers=None):
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(text))
        self.end_headers()
        self.wfile.write(data)


def answer(data_url):
    pixels = Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2])))
    text = f"A lesion of kind {hashlib.sha256(pixels.tobytes()).hexdigest()[:12]}."
    return reply_with(text, {"prompt_tokens": 300, "completion_tokens": 9, "total_tokens": 309})


def reply_with(text, usage):
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "served",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": usage,
    }


@pytest.fixture
def serve():
    servers = []

    def start(*args, **options):
        servers.append(Server(*args, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "train" / "papule"
    folder.mkdir(parents=True)
    for seed in range(N_IMAGES):
        pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder.parents[1]


def ask(photos, out, *servers, **engine_args):
    endpoints = [server if isinstance(server, str) else server.url for server in servers]
    config = AnnotateConfig(
        images=str(photos),
        out=out,
        engine="openai",
        model="served",
        engine_args={"endpoint": endpoints, **engine_args},
        n_workers=0,
        max_in_flight=4,
    )
    return run(config)


def assert_all_right(photos, out):
    found = read_run(out)
    assert len(found.descriptions) == N_IMAGES
    for row in index_images(photos):
        pixels = Image.open(photos / row.path).tobytes()
        expected = f"A lesion of kind {hashlib.sha256(pixels).hexdigest()[:12]}."
        assert found.descriptions[row.image_id].description == expected
        assert found.descriptions[row.image_id].finish_reason == "stop"


def test_several_servers_share_the_work_and_see_the_exact_pixels(photos, tmp_path, serve):
    servers = [serve() for _ in range(3)]
    summary = ask(photos, tmp_path / "run", *servers)
    assert (summary.n_ok, summary.n_failed) == (N_IMAGES, 0)
    assert_all_right(photos, tmp_path / "run")
    assert sum(server.n_asked for server in servers) == N_IMAGES
    assert all(server.n_asked for server in servers)
    (prompt,) = servers[0].prompts
    assert prompt.startswith("You are a doctor.")


def test_one_of_three_dying_stops_nothing(photos, tmp_path, serve):
    dying = serve(lambda n: None if n < 3 else "drop")
    summary = ask(photos, tmp_path / "run", serve(), dying, serve())
    assert summary.n_ok == N_IMAGES
    assert_all_right(photos, tmp_path / "run")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_storm_passes(photos, tmp_path, serve, status):
    server = serve(lambda n: status if n < 12 else None)
    summary = ask(photos, tmp_path / "run", server)
    assert (summary.n_ok, server.n_asked) == (N_IMAGES, N_IMAGES + 12)
    assert_all_right(photos, tmp_path / "run")


def test_a_server_that_is_busy_two_times_of_three_is_waited_for(photos, tmp_path, serve):
    assert ask(photos, tmp_path / "run", serve(lambda n: 429 if n % 3 else None)).n_ok == N_IMAGES
    assert_all_right(photos, tmp_path / "run")


def test_an_image_that_breaks_every_server_is_given_up_alone(photos, tmp_path, serve):
    servers = [serve(), serve()]
    poison = index_images(photos)[3].image_sha256

    def breaks(data_url):
        pixels = Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2])))
        return pixels.tobytes() == Image.open(photos / index_images(photos)[3].path).tobytes()

    for server in servers:
        server.breaks = breaks
    summary = ask(photos, tmp_path / "run", *servers)
    assert (summary.n_ok, summary.n_failed) == (N_IMAGES - 1, 1)
    (failed,) = [row for row in read_run(tmp_path / "run").descriptions.values() if row.status == "failed"]
    assert failed.image_sha256 == poison
    assert failed.reason.startswith("given up after 8 tries: InternalServerError")


def test_a_hanging_server_is_left_after_the_timeout(photos, tmp_path, serve):
    summary = ask(photos, tmp_path / "run", serve(lambda n: "hang"), serve(), timeout_s=0.3)
    assert summary.n_ok == N_IMAGES
    assert_all_right(photos, tmp_path / "run")


@pytest.fixture
def engine(serve, monkeypatch):
    """An engine with little patience that has started, and its server."""
    monkeypatch.setattr("annotate.engines.openai.PATIENCE_S", 0.3)
    server = serve()
    model = Model("served", "", "as served", "as served")
    engine = OpenAIEngine(EngineConfig(model, "a prompt", 8, max_in_flight=1, engine_args={"endpoint": server.url}))
    engine.start()
    return engine, server


def test_servers_that_are_gone_end_the_run_and_fail_no_image(engine):
    engine, server = engine
    server.behave = lambda n: 503
    feed = Feed((Request(str(number), Image.new("RGB", (8, 8))) for number in range(4)), ahead=4)
    with pytest.raises(
        UserError, match=r"no server has answered for 0 s: InternalServerError(.|\n)*fix: start it again"
    ):
        list(engine.describe(feed))
    feed.close()


def test_a_server_that_was_not_heard_for_long_because_it_was_not_asked_is_waited_for(engine):
    engine, server = engine

    def requests():
        yield Request("first", Image.new("RGB", (8, 8)))
        time.sleep(0.5)
        busy = iter((503,))
        server.behave = lambda n: next(busy, None)
        yield Request("second", Image.new("RGB", (8, 8)))

    feed = Feed(requests(), ahead=1)
    assert [answer.error for answer in engine.describe(feed)] == ["", ""]
    feed.close()


def test_what_a_server_refuses_fails_alone_and_is_asked_again_by_the_next_run(photos, tmp_path, serve):
    picky = serve(lambda n: 400 if n == 5 else None)
    summary = ask(photos, tmp_path / "run", picky)
    assert (summary.n_ok, summary.n_failed) == (N_IMAGES - 1, 1)
    (reason,) = summary.reasons
    assert reason.startswith("the server refused it: Error code: 400 - ")
    assert ask(photos, tmp_path / "run", serve()).n_ok == N_IMAGES
    assert_all_right(photos, tmp_path / "run")


def test_a_server_that_does_not_see_is_refused(photos, tmp_path, serve):
    server = serve()
    server.n_blind_tokens = 300
    with pytest.raises(UserError) as caught:
        ask(photos, tmp_path / "run", server)
    assert str(caught.value) == (
        f"{server.url}/v1 does not see: its prompt has 300 tokens with an image and 300 without\n"
        "  fix: serve a vision-language model, with a chat template that takes images"
    )
    assert not (tmp_path / "run" / "run.json").exists()


def test_no_server_or_another_model_is_said_before_anything_starts(photos, tmp_path, serve):
    with pytest.raises(UserError, match="engine 'openai' needs a server"):
        ask(photos, tmp_path / "run")
    with pytest.raises(UserError, match=r"no endpoint answers:\n  http://127.0.0.1:9/v1: Connection error"):
        ask(photos, tmp_path / "run", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"serves other, not served\n  fix: vl-dermnet annotate … --model other"):
        ask(photos, tmp_path / "run", serve(model="other"))
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("engine_args", "message"),
    [
        (
            {"endpoint": []},
            "engine 'openai' needs a server\n  fix: vl-dermnet annotate … --endpoint http://localhost:8000/v1",
        ),
        ({"endpoint": 5}, "endpoint 5 is not a URL\n  fix: --endpoint http://localhost:8000/v1"),
        ({"endpoint": ["http://h", 1]}, "endpoint 1 is not a URL\n  fix: --endpoint http://localhost:8000/v1"),
        (
            {"endpoint": "http://h", "timeout_s": "abc"},
            "--engine-arg timeout_s=abc is not a number of seconds\n  fix: --engine-arg timeout_s=600",
        ),
        (
            {"endpoint": "http://h", "top_p": 0.1, "repetition_penalty": 1.2},
            "engine 'openai' has no engine argument repetition_penalty, top_p; it has endpoint and timeout_s\n"
            "  fix: leave it out, and set it where the server is started",
        ),
    ],
)
def test_an_engine_argument_that_cannot_be_is_told_before_any_photograph_is_read(tmp_path, engine_args, message):
    settings = {"images": str(tmp_path / "nowhere"), "out": tmp_path / "run", "engine": "openai", "model": "served"}
    with pytest.raises(UserError) as caught:
        plan_of(AnnotateConfig(**settings, engine_args=engine_args))
    assert str(caught.value) == message
