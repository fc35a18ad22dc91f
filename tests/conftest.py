"""What several tests start from: a small collection of photographs, finished runs over it, the shared data, goldens.

Fixtures: `photographs`, `make_run`, `dataset`, `make_dataset`, `hub`, `one_thread` (of torch), `backbones` (random
encoders small enough to train), `experiment_config`, `shared_data` (real data sets beside the checkout, skipped where
absent), `golden` (compares a text with tests/golden/<name>; `pytest --update-golden` rewrites it), `chromium`,
`browser`, `open_page` (pages in a real browser; see tests/browser.py). No test may reach the network.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from PIL import Image

from annotate.runners.ray import ENVIRONMENT as OF_RAY
from builders.files import write_json, write_table
from builders.index import index_images, write_index
from builders.schema import DESCRIPTION_SCHEMA, Description, IndexRow, to_table
from tests.browser import CHROMIUM
from tests.class_words import WORDS

os.environ |= {  # children too; as many workers as cores run tests, and threads of all that wait for each other spin
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else every engine ties itself to all cores
}
os.environ |= OF_RAY  # which reads it when it is first imported, and vLLM imports it
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1"}  # children too

hypothesis.settings.register_profile("untimed", deadline=None)  # no test judges how fast a machine is
hypothesis.settings.load_profile("untimed")

TESTS = Path(__file__).resolve().parent
SHARED_DATA = TESTS.parents[1] / "shared" / "data"
NASTY_LABEL = 'a|b <script>"x" `c` \u202egnol\u202c שלום'


@pytest.fixture
def shared_data() -> Path:
    """The folder of real photographs beside the checkout; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real photographs of ../shared/data, which are not part of the repository")
    return SHARED_DATA


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden instead of comparing with it")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """A function `golden(name, text)`: `text` must equal tests/golden/NAME."""

    def compare(name: str, text: str) -> None:
        path = TESTS / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing; write it with: pytest --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """26 files in DermNet's layout: three classes, one named to break tables; a copy across splits, a copy in train,
    one photograph under two labels, one with EXIF orientation, one file that is no image."""
    root = tmp_path / "photographs"
    for split, n_images in (("train", 6), ("test", 2)):
        for shade, label in enumerate(("papule", "plaque", NASTY_LABEL)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(n_images):
                colour = (40 * shade + 20, 10 * number + 5, 200 if split == "test" else 90)
                exif = Image.Exif()
                if number == 1:
                    exif[0x0112] = 6  # stored on its side
                Image.new("RGB", (24, 16), colour).save(folder / f"{label[:3]}-{number}.jpg", exif=exif)
    train, test = root / "train", root / "test"
    (test / "papule" / "copy of train.jpg").write_bytes((train / "papule" / "pap-0.jpg").read_bytes())
    (test / "plaque" / "pla-1.jpg").write_bytes((train / "papule" / "pap-2.jpg").read_bytes())
    (train / "plaque" / "copy.jpg").write_bytes((train / "plaque" / "pla-3.jpg").read_bytes())
    (train / "plaque" / "broken.jpg").write_bytes(b"not a photograph")
    return root


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path, photographs: Path) -> MakeRun:
    """A function that writes a finished run over `photographs`, without asking any model."""

    def make(
        name: str = "tiny-doctor",
        text: Callable[[IndexRow], str] = lambda row: f"A photograph of skin, {row.image_sha256[:4]}. שלום 🩺\n| x |",
        keep: Callable[[IndexRow], bool] = lambda row: True,
        change: Callable[[Description], Description] = lambda description: description,
        finished: bool = True,
        images: Path = photographs,
    ) -> Path:
        run = tmp_path / f"run-{name}"
        index = index_images(images)
        prompt = "You are a dermatologist.\n```\nDescribe {what} you see --- briefly.\n```"
        described = [change(_describe(row, text(row))) for row in index if keep(row)]
        write_json(
            run / "run.json",
            {
                "schema_version": 1,
                "set_name": name,
                "fingerprint": hashlib.sha256(name.encode()).hexdigest(),
                "model": {"id": f"example/{name}", "revision": "0123456789abcdef0123456789abcdef01234567"},
                "prompt": {
                    "name": "doctor",
                    "text": prompt,
                    "rendered": f"<s>{prompt}</s>",
                    "sha256": hashlib.sha256(prompt.encode()).hexdigest(),
                },
                "sampling": {"temperature": 0.0, "max_tokens": 256},
                "preprocessing": {"max_dynamic_patch": 1},
                "engine": {
                    "id": "scripted",
                    "kind": "scripted",
                    "dtype": "float32",
                    "versions": {"python": "3.11", "transformers": "5.5"},
                },
                "machine": {"cores": 2},
                "command": f"vl-dermnet annotate photographs --out run-{name} --engine scripted",
                "created_at": "2026-01-02T03:04:05Z",
            },
        )
        write_index(run / "index.parquet", index)
        half = len(described) // 2
        write_table(run / "parts" / "part-0.parquet", to_table(described[half:], DESCRIPTION_SCHEMA))
        write_table(run / "parts" / "part-1.parquet", to_table(described[:half], DESCRIPTION_SCHEMA))
        if finished:
            write_json(run / "summary.json", {"status": {"ok": len(described)}, "images_per_s": 12.5})
        return run

    return make


def _describe(row: IndexRow, text: str) -> Description:
    is_ok = row.status == "ok"
    return Description(
        image_id=row.image_id,
        image_sha256=row.image_sha256,
        status="ok" if is_ok else "refused",
        reason="" if is_ok else row.reason,
        description=text if is_ok else "",
        finish_reason="stop" if is_ok else "",
        n_image_tokens=256 if is_ok else 0,
        n_prompt_tokens=300 if is_ok else 0,
        n_output_tokens=len(text.split()) if is_ok else 0,
        n_tiles=1 if is_ok else 0,
        attempt=1,
        retries=0,
        temperature=0.0,
        findings="",
        flags=("truncated",) if is_ok and row.image_id < "4" else (),
        engine_id="scripted-0",
        described_at="2026-01-02T03:04:06Z",
    )


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` keeps its Arrow files in the test's own folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets-cache"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch computes with one thread. Tiny tensors: a second one only waits, ten times longer on busy cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random ViT (`vit`) and a random BERT (`bert`), small enough to fine-tune in a test."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from builders.torch_repair import repair

    repair()
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    folder = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=16, patch_size=4)).save_pretrained(folder / "vit")
    processor = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *["flat", "small", "raised", "spot", "wide", "scaly", "area"]]
    transformers.BertModel(transformers.BertConfig(**sizes, vocab_size=len(vocabulary))).save_pretrained(
        folder / "bert"
    )
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder / "bert")
    return folder


@pytest.fixture(scope="session")
def built_datasets(tmp_path_factory):
    """Datasets that a test has built already: building one takes longer than most checks."""
    return tmp_path_factory.mktemp("built"), {}


@pytest.fixture
def make_two_sets(built_datasets, photographs, make_run, tmp_path):
    """A function that gives a fresh copy of a dataset of two sets in several shards, with its card or without."""
    from builders.build import BuildConfig, build  # the Hub's client reads the environment when it is imported
    from dataset_card.card import write_card

    root, known = built_datasets

    def make_it(with_images=False, shard_bytes=6_000, with_card=False):
        options = (with_images, shard_bytes, with_card)
        if options not in known:
            runs = [make_run(), make_run("other", text=lambda row: f"{len(row.path) * 'word '}")]
            known[options] = root / str(len(known))
            config = BuildConfig(
                images=photographs, runs=runs, out=known[options], with_images=with_images, shard_bytes=shard_bytes
            )
            build(config, **({"finish": write_card} if with_card else {}))
        shutil.rmtree(tmp_path / "dataset", ignore_errors=True)
        return Path(shutil.copytree(known[options], tmp_path / "dataset"))

    return make_it


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Playwright's Chromium, to launch; tests that use it carry `tests.browser.NEEDS_CHROMIUM`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started.chromium


@pytest.fixture(scope="module")
def browser(chromium: Any) -> Iterator[Any]:
    """One headless Chromium for the tests of a file."""
    with chromium.launch(executable_path=CHROMIUM) as launched:
        yield launched


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens a page in a browser of its own; what went wrong in it fails the test at its end."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def call(path: Path, script: str | None = None, wait_for: str = "article", **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        if script:
            page.add_init_script(script)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on(
            "request",
            lambda request: wrong.append(request.url) if request.url[:5] not in ("file:", "data:", "blob:") else None,
        )
        page.goto(path.as_uri())
        page.wait_for_selector(wait_for)
        return page

    yield call
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def dataset(tmp_path: Path, photographs: Path, make_run: MakeRun, private_cache: None) -> Path:
    """A dataset folder with its images; its descriptions name the class in words of their own."""
    from builders.build import BuildConfig, build

    described = make_run(text=lambda row: WORDS.get(row.label, "flat"))
    build(BuildConfig(images=photographs, runs=(described,), out=tmp_path / "dataset", with_images=True))
    return tmp_path / "dataset"


@pytest.fixture
def make_dataset(photographs: Path, make_run: MakeRun, tmp_path: Path) -> Callable[..., Path]:
    """A function that builds a dataset folder of runs by their names, with a card or without, and more options."""
    from builders.build import BuildConfig, build
    from dataset_card.card import write_card

    def make(*names: str, folder: str = "dataset", card: bool = False, **options: Any) -> Path:
        runs = tuple(make_run(name) for name in names)
        config = BuildConfig(images=photographs, runs=runs, out=tmp_path / folder, **options)
        build(config, finish=write_card) if card else build(config)
        return config.out

    return make


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Hub of this test's own, to which the clients in this process go."""
    from tests.hub_server import HubServer
    from tests.hub_server.client import connect

    with HubServer(tmp_path / "hub") as server:
        connect(monkeypatch, server, tmp_path / "home")
        yield server


@pytest.fixture
def experiment_config(tmp_path: Path, dataset: Path, backbones: Path) -> Callable[..., Any]:
    """A function that gives the `TrainConfig` of a short frozen experiment in `tmp_path / "exp"`; options change it."""
    from train.config import TrainConfig

    defaults = {
        "dataset": str(dataset),
        "out": tmp_path / "exp",
        "image_backbone": str(backbones / "vit"),
        "text_backbone": str(backbones / "bert"),
        "is_frozen": True,
        "epochs": 3,
        "batch_size": 8,
        "n_seeds": 1,
        "protocol": "official",
        "models": ("attention_pooling",),
    }
    return lambda **options: TrainConfig.model_validate({**defaults, **options})
