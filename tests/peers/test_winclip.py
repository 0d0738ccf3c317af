"""Our WinCLIP and WinCLIP+ against anomalib's: same random ViT-B-16-plus-240 weights, images and sentences (make peers)."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from zsadlib.detectors.winclip import WinClip, WinClipPlus
from zsadlib.files import CACHE
from zsadlib.models import loading

FOLDER = CACHE / "peers"


@pytest.fixture(scope="module")
def backbone():
    return loading.load_backbone("ViT-B-16-plus-240", str(FOLDER / "random-weights.pt"))


@pytest.mark.parametrize("shots", [0, 1])
def test_scores_and_maps_are_those_of_anomalib(backbone, shots):
    theirs = load_file(FOLDER / "winclip.safetensors")
    batch = theirs["images"]
    detector = (WinClipPlus if shots else WinClip)(backbone, 240)
    detector.prepare("screw", detector.encode(batch[3:]) if shots else None)
    sentences = json.loads((FOLDER / "sentences.json").read_text())
    detector.text = [
        F.normalize(backbone.encode_text(s, normalize=False).mean(0, keepdim=True), dim=-1) for s in sentences
    ]
    scores, maps = detector.predict(batch[:3])
    difference = [float((a - theirs[f"{name}{shots}"]).abs().max()) for name, a in (("scores", scores), ("maps", maps))]
    print(f"{shots} shots: largest difference of image scores {difference[0]:.1e}, of maps {difference[1]:.1e}")
    assert max(difference) < 1e-4
    assert maps.std() > 1e-5 and scores.std() > 1e-6  # and they say something
    assert torch.equal(torch.argsort(scores), torch.argsort(theirs[f"scores{shots}"]))
