"""One picture of MiniAD: an object or texture, perhaps damaged, seen by a camera."""

import zlib

import numpy as np
from scipy.ndimage import gaussian_filter

from zsadlib.datasets.miniad.defects import damage
from zsadlib.datasets.miniad.drawing import noise

SIZE = 192


def generator(*key):
    """A random generator that depends on nothing but ``key`` (numbers and strings)."""
    return np.random.default_rng([k if isinstance(k, int) else zlib.crc32(k.encode()) for k in key])


def photograph_it(rng, image):
    """What a camera adds, to normal and damaged objects alike: uneven light, exposure, blur and noise."""
    size = image.shape[0]
    image = image * (1 + rng.uniform(0, 0.08) * noise(rng, size, 0.4))[..., None]
    image = np.clip(image * rng.uniform(0.85, 1.1), 0, 1) ** rng.uniform(0.85, 1.2)
    image = gaussian_filter(image, (s := rng.uniform(0.0, 0.9), s, 0))
    return np.clip(image + rng.normal(0, rng.uniform(0.003, 0.02), image.shape), 0, 1).astype(np.float32)


def picture(category, kind, rng, size=SIZE):
    """The drawing of ``category`` (a category function), good or with a defect of ``kind``, photographed: image and mask."""
    image, where = category(rng, size)
    mask = np.zeros(where.shape, bool)
    if kind != "good":
        image, mask = damage(rng, image, where, kind, rng.uniform(0, 1))
    return photograph_it(rng, image), mask
