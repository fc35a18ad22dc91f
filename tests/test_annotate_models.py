"""Which checkpoint is meant, and whose code it may run: told before anything is loaded."""

import json

import pytest

from annotate.models import resolve_model
from builders.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "why"),
    [("{bad", "Expecting property name"), ("[]", "it holds no JSON object")],
)
def test_a_damaged_checkpoint_is_named(tmp_path, text, why):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=rf"^{tmp_path}/config\.json is damaged: {why}"):
        resolve_model(str(tmp_path), None, False)


def test_a_checkpoint_runs_no_code_of_another_repository(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"llm_config": {"auto_map": {"AutoConfig": "configuration.C"}}}))
    assert resolve_model(str(tmp_path), None, True).trust_remote_code
    named = "somebody/else--tokenization.T"
    forms = (
        {"AutoTokenizer": [None, named]},
        [named, None],
        {"AutoTokenizer": {"tokenizers": named}},
    )  # as loaders read it: a pair, the pair alone, one name for each backend
    for form in (*({"auto_map": each} for each in forms), {"parts": [{"auto_map": forms[0]}]}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(form))
        with pytest.raises(UserError) as caught:
            resolve_model(str(tmp_path), None, True)
        assert str(caught.value) == (
            f"{tmp_path} takes code from another repository, at no pinned commit: tokenizer_config.json names {named}\n"
            "  fix: read the code of somebody/else, copy its .py files into a folder with the model, and let its "
            "tokenizer_config.json say tokenization.T"
        )
    assert resolve_model(str(tmp_path), None, False).architecture == ""


def test_a_checkpoint_of_the_hub_may_name_its_own_repository_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--own" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    own = {"architectures": ["OwnModel"], "auto_map": {"AutoConfig": "owner/own--configuration.C"}}
    (snapshot / "config.json").write_text(json.dumps(own))
    found = resolve_model("owner/own", COMMIT, True)
    assert (found.revision, found.architecture) == (COMMIT, "OwnModel")
    foreign = {"auto_map": {"AutoProcessor": "somebody/else--processing.P"}}
    (snapshot / "processor_config.json").write_text(json.dumps(foreign))
    with pytest.raises(
        UserError, match="owner/own takes code from another repository, at no pinned commit: processor_c"
    ):
        resolve_model("owner/own", COMMIT, True)
