"""train/ needs no torchvision: it runs where that cannot be imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from builders.bundled import BUNDLED
from tests.absent import code_without

ANSWERS = """
import sys
from pathlib import Path
import numpy as np, torch, train.auto, train.experiment, train.extract
from transformers import AutoModel, AutoProcessor
from transformers.utils import is_torchvision_available
assert not is_torchvision_available()
from PIL import Image
from train.backbones import load_image_backbone, load_text_backbone
from train.model import FusionModel, save_model
towers = load_image_backbone("tiny-internvl"), load_text_backbone("tiny-internvl")
save_model(FusionModel("concat", ("a", "b"), *towers), Path(sys.argv[1]), 16, training={})
processor, model = AutoProcessor.from_pretrained(sys.argv[1]), AutoModel.from_pretrained(sys.argv[1])
logits = model(**processor(images=[Image.new("RGB", (40, 30))], text=["a red papule"])).logits
assert logits.shape == (1, 2) and bool(torch.isfinite(logits).all())
"""


@pytest.mark.slow
def test_a_model_is_loaded_saved_and_asked_where_torchvision_is_absent(tmp_path):
    assert (Path(BUNDLED["tiny-internvl"]) / "config.json").is_file()
    code = code_without("torchvision", "torchaudio", "torchcodec") + ANSWERS
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
