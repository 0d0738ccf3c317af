"""The *seen test* categories, once the test set of this study. No embedded model has been trained on them.

Their results were looked at while the study was made, so they count as a second development set: what is said of them
describes them.

A category function takes ``(rng, size)`` and returns an image (size, size, 3), float32 in [0, 1], and the bool mask
(size, size) of the object (all True for a texture).
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from zsadlib.datasets.miniad.drawing import (
    box,
    cells,
    circle,
    colour,
    fractal,
    metal,
    noise,
    photo_texture,
    place,
    pose,
    table,
    texture,
    tint,
)


def brick(rng, size):
    return texture(photo_texture(rng, size, "brick.png", (0.5, 0.8)) * colour(rng, (0.95, 0.6, 0.5), 0.06))


def grass(rng, size):
    return texture(photo_texture(rng, size, "grass.png", (0.4, 0.6)) * colour(rng, (0.75, 1.0, 0.5), 0.06))


def denim(rng, size):
    x, y = pose(rng, size, turn=0.08)
    weave = np.sin(95 * (x - 0.6 * y)) * (1 + 0.6 * noise(rng, size, 0.005, 3)) + 0.6 * noise(rng, size, 0.004, 12)
    return texture(tint(1 + 0.12 * weave, colour(rng, (0.28, 0.38, 0.58), 0.12)))


def terrazzo(rng, size):
    gap, index = cells(rng, size, 120)
    chips = rng.uniform(0.35, 0.95, (120, 3)) * 0.35 + rng.uniform(0.3, 0.9, (120, 1)) * 0.65
    stone = gaussian_filter((gap > 0.28).astype(np.float32), 0.8)[..., None]
    return texture(stone * chips[index] + (1 - stone) * tint(1 + 0.02 * noise(rng, size, 0.004), (0.8, 0.79, 0.76)))


def screw(rng, size):
    x, y = pose(rng, size)
    thread = 0.035 * np.abs(np.sin(24 * (x + 0.25 * y))) * (x > -0.3)
    shank = np.maximum(np.abs(y) - 0.13 + thread - 0.13 * np.clip((0.55 - x) / 0.3, -1, 0), np.abs(x - 0.1) - 0.72)
    head = np.maximum(box(x + 0.68, y, 0.14, 0.3, 0.05), -box(x + 0.86, y, 0.08, 0.05))
    stripes = 1 + 0.25 * np.sin(24 * (x + 0.25 * y) * 2) * (x > -0.3)
    return place(table(rng, size), np.minimum(shank, head), metal(rng, size) * stripes[..., None], 0.1)


def cable(rng, size):
    x, y = pose(rng, size, turn=np.pi)
    image, mask = place(table(rng, size), circle(x, y, 0.82), tint(1 + 0.02 * noise(rng, size, 0.05), [0.75] * 3), 0.06)
    for i, insulation in enumerate([(0.65, 0.45, 0.25), (0.25, 0.4, 0.7), (0.35, 0.6, 0.3)]):
        cx, cy = 0.4 * np.cos(2.09 * i), 0.4 * np.sin(2.09 * i)
        wire = tint(1 + 0.02 * noise(rng, size, 0.02), colour(rng, insulation, 0.06))
        image, _ = place(image, circle(x - cx, y - cy, 0.33), wire, 0.03)
        strands = 1 + 0.35 * np.cos(45 * (x - cx)) * np.cos(45 * (y - cy))
        image, _ = place(image, circle(x - cx, y - cy, 0.21), tint(strands, colour(rng, (0.72, 0.5, 0.32), 0.05)), 0.02)
    return image, mask


def plate(rng, size):
    x, y = pose(rng, size)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    glaze = 1 - 0.12 * (np.abs(r - 0.52) < 0.015) + 0.02 * noise(rng, size, 0.2)
    surface = tint(glaze, colour(rng, (0.88, 0.87, 0.84), 0.05))
    border = (np.abs(r - 0.68) < 0.045) & (np.sin(24 * angle) > -0.2)
    surface = np.where(border[..., None], np.asarray([0.2, 0.3, 0.6], np.float32), surface)
    return place(table(rng, size), circle(x, y, 0.84), surface, 0.08)


def hazelnut(rng, size):
    x, y = pose(rng, size)
    shell = np.hypot(x / 0.68, (y + 0.12 * x**2) / 0.76) - 1
    stripes = (
        1 + 0.12 * np.sin(26 * np.arctan2(y + 1.6, x) * 1.5 + noise(rng, size, 0.1)) + 0.08 * fractal(rng, size, 0.04)
    )
    cap = np.where(y > 0.45 + 0.03 * noise(rng, size, 0.03), 1.45, 1.0)
    nut = tint(stripes * gaussian_filter(cap, 1.5), colour(rng, (0.5, 0.31, 0.17), 0.1))
    return place(table(rng, size), shell * 0.7, nut, 0.4)


def zipper(rng, size):
    x, y = pose(rng, size, turn=0.06)
    weave = tint(
        1 + 0.12 * np.sin(110 * x) * np.sin(110 * y) + 0.05 * noise(rng, size, 0.005), colour(rng, [0.22] * 3, 0.2)
    )
    image, mask = texture(weave)
    for side, phase in [(-1, 0.0), (1, np.pi)]:
        teeth = np.maximum(np.abs(x - 0.1 * side) - 0.15, -np.sin(32 * y + phase) * 0.04)
        image, _ = place(image, teeth, metal(rng, size), 0.03)
    return image, mask


CATEGORIES = [brick, grass, denim, terrazzo, screw, cable, plate, hazelnut, zipper]
