"""Our WinCLIP against anomalib's, with the same random ViT-B-16-plus-240 weights and the same sentences.

Runs in an environment of its own: ``make peers``.
"""

import numpy as np
import open_clip
import pytest
import torch
from anomalib.models.image.winclip import torch_model
from anomalib.models.image.winclip.prompting import create_prompt_ensemble

from zsadlib import backbones, detectors, miniad

NAME = "ViT-B-16-plus-240"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Our backbone and their model, both from one file of random weights, and four preprocessed images."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    torch.save(open_clip.create_model(NAME).state_dict(), path)
    ours = backbones.load_backbone(NAME, str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_model, "PRETRAINED", str(path))
        theirs = torch_model.WinClipModel().eval()
    drawn = [miniad.draw("screw", kind, miniad.generator(kind), 240)[0] for kind in ("good", "crack", "stain", "good")]
    from PIL import Image

    return ours, theirs, ours.preprocess([Image.fromarray((d * 255).astype(np.uint8)) for d in drawn])


@pytest.mark.parametrize("shots", [0, 1])
def test_scores_and_maps_are_equal(pair, shots):
    ours, theirs, batch = pair
    theirs.setup("screw", batch[3:] if shots else None)
    expected = theirs(batch[:3])
    detector = (detectors.WinClipPlus if shots else detectors.WinClip)(ours, 240)
    detector.prepare("screw", detector.encode(batch[3:]) if shots else None)
    sides = [ours.encode_text(side, normalize=False).mean(0, keepdim=True) for side in create_prompt_ensemble("screw")]
    detector.text = [torch.nn.functional.normalize(side, dim=-1) for side in sides]
    scores, maps = detector.predict(batch[:3])
    assert (scores - expected.pred_score).abs().max() < 1e-4
    assert (maps - expected.anomaly_map).abs().max() < 1e-4
    assert maps.std() > 1e-5 and scores.std() > 1e-6
