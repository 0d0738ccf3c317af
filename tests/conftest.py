import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import torch
from PIL import Image

from zsadlib.datasets import miniad

torch.set_num_threads(2)


def write_category(root, category="bolt", kinds=("crack", "burn"), good=4, bad=3, train=2, size=96, drawn=()):
    """A small labelled category in the MVTec AD layout, drawn by MiniAD's functions (``drawn``: its names of the kinds)."""
    names = dict(zip(kinds, drawn or kinds, strict=True)) | {"good": "good"}
    for part, kind, count in [("train", "good", train), ("test", "good", good), *(("test", k, bad) for k in kinds)]:
        for i in range(count):
            image, mask = miniad.draw(category, names[kind], miniad.generator("tests", category, part, kind, i), size)
            path = root / part / kind / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 255).astype(np.uint8)).save(path)
            if kind != "good":
                mask_path = root / "ground_truth" / kind / f"{i:02d}_mask.png"
                mask_path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).convert("L").save(mask_path)
    return root


def stop_at_call(monkeypatch, module, name, number):
    """Let the call of this number of a module's function be the stop of the whole run; returns a list, longer by one a call."""
    function, calls = getattr(module, name), []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return function(*arguments)

    monkeypatch.setattr(module, name, stop)
    return calls


@pytest.fixture(scope="session")
def tiny_category(tmp_path_factory):
    return write_category(tmp_path_factory.mktemp("tiny") / "bolt")


@pytest.fixture(scope="session")
def backbone():
    from zsadlib.models.loading import load_backbone

    return load_backbone()


@pytest.fixture(scope="session")
def batch(backbone):
    images = [miniad.draw("bolt", kind, miniad.generator(kind), 120)[0] for kind in ("good", "crack", "stain")]
    return backbone.preprocess([Image.fromarray((i * 255).astype(np.uint8)) for i in images])
