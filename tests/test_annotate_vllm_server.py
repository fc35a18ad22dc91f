"""annotate against vLLM's real API server on a CPU: the same texts as in this process, findings held to a schema."""

import json
from importlib.util import find_spec

import pytest

from annotate.config import AnnotateConfig
from annotate.job import run
from annotate.models import resolve_model
from annotate.schemas import load_schema
from builders.run_folder import read_run
from builders.sample import write_sample

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None or find_spec("openai") is None, reason="needs vllm and openai"),
    pytest.mark.timeout(600),
]
N_IMAGES = 48


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_sample(folder / "photos", n_images=N_IMAGES, seed=7)
    return folder / "photos"


@pytest.fixture(scope="module")
def server():
    from annotate.bench.server import running_server
    from annotate.engines.vllm import NO_WHITESPACE

    location = resolve_model("tiny-internvl", None, trust_remote_code=False).location
    with running_server(location, "tiny", "float32", 1, {"structured_outputs_config": NO_WHITESPACE}) as url:
        yield url


def config(photos, out, **changes):
    return AnnotateConfig(**{"images": str(photos), "out": out, "dtype": "float32", "max_tokens": 64, **changes})


def test_the_server_and_this_process_write_the_same_and_findings_of_the_schema(photos, tmp_path, server):
    """One run of each: starting an engine takes longer than its answers."""
    schema = load_schema("derm")
    endpoint = {"engine": "openai", "model": "tiny", "engine_args": {"endpoint": server}}
    here = {"engine": "vllm", "model": "tiny-internvl"}
    rows = {}
    for name, engine in (("server", endpoint), ("here", here)):
        summary = run(config(photos, tmp_path / name, schema_name="derm", **engine))
        assert (summary.n_failed, summary.n_refused, summary.n_flagged.get("no_findings", 0)) == (0, 0, 0)
        rows[name] = {row.image_id: row for row in read_run(tmp_path / name).descriptions.values()}
        for row in rows[name].values():
            assert row.description
            assert schema.accepts(row.findings)
            assert json.loads(row.findings).keys() == schema.json_schema["properties"].keys()
    theirs, ours = rows["server"], rows["here"]
    assert theirs.keys() == ours.keys()
    agreement = sum(theirs[key].description == ours[key].description for key in ours) / len(ours)
    assert agreement >= 0.98, f"{agreement:.1%} agree"
    assert {key: theirs[key].n_prompt_tokens for key in ours} == {key: ours[key].n_prompt_tokens for key in ours}
