"""Real photographs, where ZSAD_REAL_DATA names a labelled folder (magnetic tiles in the MVTec AD layout)."""

import os
from pathlib import Path

import numpy as np
import pytest

from zsadlib import datasets, profiles, study
from zsadlib.evaluation import metrics

ROOT = os.environ.get("ZSAD_REAL_DATA", "")
pytestmark = pytest.mark.skipif(not ROOT, reason="ZSAD_REAL_DATA names no folder of real photographs")


@pytest.fixture(scope="module")
def tiles():
    return datasets.read_category(Path(ROOT), "magnetic tile").take(60)


@pytest.mark.parametrize("method", ["winclip", "alfa"])
def test_words_find_defects_on_real_photographs(tiles, method, backbone):
    detector = study.build_detector(method, profiles.load_profile("mini"), backbone).prepare("magnetic tile")
    scores, maps = study.predict_category(detector, tiles)
    assert maps.shape[0] == len(tiles.test) and np.isfinite(maps).all()
    assert metrics.image_metrics(tiles.labels, scores)["image_auroc"] > 0.6
    masks = np.stack([datasets.load_mask(s, maps.shape[-1]) for s in tiles.test])
    assert metrics.pixel_metrics(masks, maps)["pixel_auroc"] > 0.6


def test_no_photograph_of_that_folder_is_in_the_project():
    from zsadlib.files import ROOT as project
    from zsadlib.provenance import sha256

    theirs = {sha256(p) for p in Path(ROOT).rglob("*") if p.suffix in (".jpg", ".png")}
    ours = [p for p in project.rglob("*") if p.suffix in (".jpg", ".png") and ".venv" not in p.parts]
    assert theirs and not [p for p in ours if sha256(p) in theirs]
