"""One picture of MiniAD as files: all code that decides on their bytes is here or imported here, for ``splits.split_source``."""

import numpy as np
from PIL import Image

from zsadlib.datasets.miniad.pictures import generator, picture


def save_picture(root, draw, category, part, kind, index, seed):
    """Draw one picture and write it below ``root`` in the MVTec AD layout, with its mask unless it is good.

    Args:
        draw: the category's function. category, part, kind, index: its folders and its number; with ``seed`` they decide it.
    """
    image, mask = picture(draw, kind, generator(seed, category, part, kind, index))
    name = f"{index:03d}.png"
    path = root / category / part / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)
    if kind != "good":
        mask_path = root / category / "ground_truth" / kind / name.replace(".png", "_mask.png")
        mask_path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(mask_path)
