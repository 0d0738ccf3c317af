"""The pictures that train the twins, each with what its generator knows of it: object, colours, light, view, state and more.

Every photograph of a drawing is framed by one rule, damaged or not: a defect is drawn for it, the camera keeps the place in view,
and in half of the photographs the defect is then left out. So nothing of a picture's framing tells whether it is damaged.
"""

import json

import joblib
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab
from tqdm.auto import tqdm

from zsadlib.datasets.miniad.anything import DESIGNS
from zsadlib.datasets.miniad.defects import Invisible, damage
from zsadlib.datasets.miniad.drawing import noise
from zsadlib.datasets.miniad.pictures import generator, photograph_it
from zsadlib.datasets.miniad.training import CATEGORIES
from zsadlib.models import embedded
from zsadlib.training.pictures import GROUP, STATES, framed, resized, turned

NAMED = 0.4  # share of drawings that show a named category; the rest are random designs
CLOSEST = 0.2  # side of the closest view, as a share of the drawing's: who writes of a scratch shows it
FAINTEST = 0.3  # strength of the faintest defects: what can hardly be seen is not written about
COLOURS = {
    "black": (0.08, 0.08, 0.08), "white": (0.93, 0.93, 0.93), "grey": (0.5, 0.5, 0.5), "red": (0.75, 0.12, 0.12),
    "orange": (0.9, 0.5, 0.12), "brown": (0.42, 0.27, 0.15), "yellow": (0.9, 0.85, 0.2), "green": (0.2, 0.55, 0.2),
    "blue": (0.15, 0.3, 0.7), "purple": (0.5, 0.2, 0.6), "pink": (0.9, 0.55, 0.65), "beige": (0.83, 0.75, 0.6),
}  # fmt: skip


def colour_name(pixels):
    """The nearest of ``COLOURS`` to the median of some pixels (n, 3) in [0, 1], in CIELAB."""
    names = list(COLOURS)
    known, seen = rgb2lab([*COLOURS.values()]), rgb2lab(np.median(pixels, 0)[None].astype(float))
    return names[int(np.linalg.norm(known - seen, axis=1).argmin())]


def photograph(rng, image, mask):
    """A photograph of a drawing: (120, 120, 3) uint8, and what the camera did as JSON data.

    Args:
        image: (size, size, 3) in [0, 1]. mask: (size, size) bool, the place that is kept in view.
    """
    window, share, size = *framed(rng, mask, CLOSEST), len(mask)
    image = photograph_it(rng, image)
    seen = {"view": "close" if share < 0.35 else "cropped" if share < 0.85 else "whole", "film": "colour"}
    seen |= {"even": True, "sharp": True, "contrast": "normal"}
    if rng.random() < 0.25:
        image, seen["film"] = np.repeat(image @ np.float32([0.3, 0.6, 0.1])[:, None], 3, 2), "grey"
    if rng.random() < 0.3:
        depth = rng.uniform(0, 0.35)
        image = image * np.clip(1 + depth * noise(rng, size, 0.35), 0.2, 2)[..., None]
        seen["even"] = bool(depth < 0.15)
    if rng.random() < 0.25:
        sigma = rng.uniform(0.5, 1.6)
        image, seen["sharp"] = gaussian_filter(image, (sigma, sigma, 0)), bool(sigma < 0.9)
    if rng.random() < 0.3:
        factor = rng.uniform(0.4, 1.3)
        image = (image - image.mean()) * factor + rng.uniform(0.15, 0.75)
        seen["contrast"] = "low" if factor < 0.7 else "high" if factor > 1.1 else "normal"
    image = np.clip(image[window], 0, 1)
    seen["light"] = "dark" if image.mean() < 0.3 else "bright" if image.mean() > 0.65 else "normal"
    return resized(turned(rng, image)), seen


def draw_scene(seed, index):
    """One drawing: ``GROUP`` photographs, the first half intact, and a dict of facts (JSON data) for each."""
    rng = generator("scenes", seed, index)
    known = len(CATEGORIES) - len(DESIGNS)
    number = int(rng.integers(known) if rng.random() < NAMED else known + rng.integers(len(DESIGNS)))
    base, where = CATEGORIES[number](rng, int(rng.choice([128, 160, 192, 224])))
    about = {"object": CATEGORIES[number].__name__.replace("_", " "), "colour": colour_name(base[where])}
    about["ground"] = colour_name(base[~where]) if not where.all() else None
    images, facts = [], []
    while len(images) < GROUP:
        kind = STATES[int(rng.integers(1, len(STATES)))]
        try:
            changed, mask = damage(rng, base, where, kind, rng.uniform(FAINTEST, 1))
        except Invisible:
            continue
        damaged = len(images) >= GROUP // 2
        image, seen = photograph(rng, changed if damaged else base, mask)
        images.append(image)
        facts.append(about | seen | {"state": kind if damaged else "good"})
    return images, facts


def draw_scenes(count, seed, images_file, facts_file):
    """Draw ``count`` scenes: an array file (n, 120, 120, 3) uint8, and a file with one line of JSON per picture."""
    shape = (count * GROUP, embedded.IMAGE_SIZE, embedded.IMAGE_SIZE, 3)
    images = np.lib.format.open_memmap(images_file, "w+", np.uint8, shape)
    jobs = (joblib.delayed(draw_scene)(seed, i) for i in range(count))
    scenes = joblib.Parallel(n_jobs=-1, batch_size=32, return_as="generator")(jobs)
    with open(facts_file, "w", encoding="utf-8") as file:
        for i, (drawn, facts) in enumerate(tqdm(scenes, "drawing", count, mininterval=10)):
            images[i * GROUP : (i + 1) * GROUP] = drawn
            file.writelines(json.dumps(one) + "\n" for one in facts)
    images.flush()
