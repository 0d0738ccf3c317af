"""The pictures that train the embedded model: drawings of the training categories, each photographed intact and damaged."""

import joblib
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from tqdm.auto import tqdm

from zsadlib.datasets.miniad.anything import DESIGNS
from zsadlib.datasets.miniad.defects import KINDS, Invisible, damage
from zsadlib.datasets.miniad.drawing import noise
from zsadlib.datasets.miniad.pictures import generator, photograph_it
from zsadlib.datasets.miniad.training import CATEGORIES
from zsadlib.models import embedded

GROUP = 4  # photographs of one drawing: the first half intact, the second half damaged
NAMED, OBJECTS = 0.2, 0.55  # shares of drawings: named categories, random objects; the rest are random surfaces
RANDOM_OBJECTS = 5  # the first of the random designs are objects
STATES = ["good", *KINDS]


def framed(rng, mask, closest=0.45):
    """A window (rows, columns) that keeps most of ``mask`` in view, and its share of the picture.

    Args:
        closest: side of the smallest window, as a share of the picture's.
    """
    size = len(mask)
    for _ in range(10):
        side = rng.uniform(closest, 1.3)
        height, width = (int(size * min(1.0, side * rng.uniform(0.85, 1.15))) for _ in range(2))
        top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
        window = slice(top, top + height), slice(left, left + width)
        if mask[window].sum() >= 0.6 * mask.sum():
            return window, height * width / size**2
    return (slice(None), slice(None)), 1.0


def photograph_wildly(rng, image, mask):
    """Camera variety beyond MiniAD's own: framing, aspect, grey film, hard light, blur. Returns (120, 120, 3) uint8."""
    if rng.random() < 0.4:  # as MiniAD's own camera, nothing more
        return resized(turned(rng, photograph_it(rng, image)))
    size, (window, _) = image.shape[0], framed(rng, mask)
    image = photograph_it(rng, image)
    if rng.random() < 0.35:
        image = np.repeat(image @ np.float32([0.3, 0.6, 0.1])[:, None], 3, 2)
    if rng.random() < 0.4:
        image = image * np.clip(1 + rng.uniform(0, 0.35) * noise(rng, size, 0.35), 0.2, 2)[..., None]
    if rng.random() < 0.3:
        image = gaussian_filter(image, (s := rng.uniform(0.5, 1.6), s, 0))
    if rng.random() < 0.4:
        image = (image - image.mean()) * rng.uniform(0.4, 1.2) + rng.uniform(0.15, 0.75)
    image = image[window]
    return resized(turned(rng, image))


def turned(rng, image):
    """An image, perhaps mirrored."""
    image = image[:, ::-1] if rng.random() < 0.5 else image
    return image[::-1] if rng.random() < 0.5 else image


def resized(image):
    """A float image in [0, 1] as the model's input size, uint8."""
    picture = Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
    return np.asarray(picture.resize((embedded.IMAGE_SIZE, embedded.IMAGE_SIZE), Image.BICUBIC))


def draw_group(seed, index):
    """One drawing, photographed intact and with different defects: ``GROUP`` images and (category, state) labels."""
    rng = generator("training", seed, index)
    known = len(CATEGORIES) - len(DESIGNS)
    choice = rng.random()
    if choice < NAMED:
        number = int(rng.integers(known))
    elif choice < NAMED + OBJECTS:
        number = int(known + rng.integers(RANDOM_OBJECTS))
    else:
        number = int(known + rng.integers(RANDOM_OBJECTS, len(DESIGNS)))
    base, where = CATEGORIES[number](rng, int(rng.choice([128, 160, 192, 224])))
    images = [photograph_wildly(rng, base, np.zeros(where.shape, bool)) for _ in range(GROUP // 2)]
    labels = [(number, 0)] * len(images)
    while len(images) < GROUP:
        state = int(rng.integers(1, len(STATES)))
        try:
            changed, mask = damage(rng, base, where, STATES[state], rng.uniform(0, 1))
        except Invisible:
            continue
        images.append(photograph_wildly(rng, changed, mask))
        labels.append((number, state))
    return images, labels


def draw_images(groups, seed, out):
    """Draw the training images into the array file ``out``, (n, 120, 120, 3) uint8; returns labels (n, 2): category, state."""
    jobs = (joblib.delayed(draw_group)(seed, i) for i in range(groups))
    shape = (groups * GROUP, embedded.IMAGE_SIZE, embedded.IMAGE_SIZE, 3)
    images = np.lib.format.open_memmap(out, "w+", np.uint8, shape)
    labels = np.zeros((len(images), 2), np.int64)
    parts = joblib.Parallel(n_jobs=-1, batch_size=64, return_as="generator")(jobs)
    for i, (drawn, named) in enumerate(tqdm(parts, "drawing", groups, mininterval=10)):
        images[i * GROUP : (i + 1) * GROUP], labels[i * GROUP : (i + 1) * GROUP] = drawn, named
    images.flush()
    return labels
