"""Views of a photograph: as a whole, and in overlapping crops, because photographs are large and defects small.

Chosen on MiniAD development drawn large and on the magnetic tile, the real development set (``notebooks/appendix/A2``).
(This project's own.)
"""

import numpy as np
import torch
from PIL import Image

from zsadlib.models.aligner import to_map

VIEWS = ("whole", "auto")
LEVELS = (2, 3)  # crops a side
OVERLAP = 1.25  # the side of a crop is this part of an n-th of the photograph
LARGE = 1.5  # a photograph has crops where its shorter side has this many times the pixels of the model's input
# Log odds: with it, as many good pictures of MiniAD development are above 0.5 as with one look.
SHIFT = 0.26


def boxes(width, height, view, image_size):
    """Boxes (left, top, right, bottom) in pixels, the whole photograph first; 14 of them in a large one, else one.

    Args:
        view: "whole" or "auto". image_size: of the model's input, in pixels.
    """
    found = [(0, 0, width, height)]
    if view == "whole" or min(width, height) < LARGE * image_size:
        return found
    for n in LEVELS:
        w, h = (round(OVERLAP * side / n) for side in (width, height))
        found += [
            (x, y, x + w, y + h)
            for y in np.linspace(0, height - h, n).round().astype(int).tolist()
            for x in np.linspace(0, width - w, n).round().astype(int).tolist()
        ]
    return found


def levels(items):
    """What belongs to the whole, to the 2 x 2 crops and to the 3 x 3 crops, of something in the order of ``boxes``."""
    ends = np.cumsum([1, *(n * n for n in LEVELS)]).tolist()
    return [items[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def join_scores(scores):
    """P(abnormal) of the views (n,) in the order of ``boxes`` -> one score in [0, 1]; one view keeps its score.

    The mean of the log odds of the whole and of the most abnormal crop of each level, less ``SHIFT``.
    """
    if len(scores) == 1:
        return scores[0]
    odds = scores.clamp(1e-6, 1 - 1e-6).logit()
    return (torch.stack([level.max() for level in levels(odds)]).mean() - SHIFT).sigmoid()


def join_maps(patches, boxes, size):
    """Patch scores of the views (n, grid * grid) -> one anomaly map (size, size) over the photograph squeezed to a square.

    Half of it is the map of the whole, a quarter each level of crops, averaged where they overlap.
    """
    whole, *crops = levels(to_map(patches, size).numpy())
    if len(boxes) == 1:
        return whole[0]
    width, height = boxes[0][2:]
    joined = whole[0] / 2
    for maps, places in zip(crops, levels(boxes)[1:], strict=True):
        total, count = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
        for one, (left, top, right, bottom) in zip(maps, places, strict=True):
            x0, x1 = round(left * size / width), round(right * size / width)
            y0, y1 = round(top * size / height), round(bottom * size / height)
            total[y0:y1, x0:x1] += np.asarray(Image.fromarray(one).resize((x1 - x0, y1 - y0), Image.BILINEAR))
            count[y0:y1, x0:x1] += 1
        joined = joined + total / count / len(crops) / 2
    return joined
