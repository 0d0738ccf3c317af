"""The categories on which choices of the study are made. No embedded model has been trained on them.

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
    metal,
    noise,
    place,
    polygon,
    pose,
    table,
    texture,
    tint,
)


def fabric(rng, size):
    x, y = pose(rng, size, turn=0.1)
    twill = np.sin(65 * (x + y)) + 0.5 * np.sin(130 * x) * np.sin(130 * y) + 0.5 * noise(rng, size, 0.004)
    return texture(tint(1 + 0.1 * twill, colour(rng, rng.uniform(0.3, 0.8, 3), 0.1)))


def granite(rng, size):
    _, index = cells(rng, size, 1500)
    minerals = np.array([0.25, 0.55, 0.75, 0.9])[rng.choice(4, 1500, p=[0.15, 0.35, 0.35, 0.15])][index]
    return texture(tint(gaussian_filter(minerals, 0.8), colour(rng, (0.85, 0.8, 0.78), 0.08)))


def bearing(rng, size):
    x, y = pose(rng, size)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    ring = np.maximum(circle(x, y, 0.8), -circle(x, y, 0.3))
    balls = 0.6 * (np.cos(11 * angle) > 0.2) * (np.abs(r - 0.55) < 0.08)
    groove = np.where(np.abs(r - 0.55) < 0.11, 0.4, 1.0)
    return place(table(rng, size), ring, metal(rng, size) * gaussian_filter(groove + balls, 1)[..., None])


def bolt(rng, size):
    x, y = pose(rng, size)
    r = np.hypot(x, y)
    socket = np.where(polygon(x, y, 0.3, 6) < 0, 0.25, 1.0) * (1 + 0.08 * np.sin(40 * r) * (r > 0.5))
    return place(table(rng, size), circle(x, y, 0.74), metal(rng, size) * gaussian_filter(socket, 0.8)[..., None], 0.12)


def tomato(rng, size):
    x, y = pose(rng, size)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    skin = tint(1.1 - 0.35 * r**2 + 0.02 * noise(rng, size, 0.08), colour(rng, (0.75, 0.17, 0.1), 0.1))
    star = r < 0.12 + 0.14 * np.abs(np.cos(2.5 * angle)) ** 3
    skin = np.where(star[..., None], tint(1 + 0.1 * noise(rng, size, 0.02), (0.25, 0.42, 0.12)), skin)
    return place(table(rng, size), circle(x, y, 0.76 + 0.02 * np.cos(5 * angle)), skin, 0.35)


def key(rng, size):
    x, y = pose(rng, size, turn=0.4)
    body = np.minimum(np.maximum(circle(x + 0.5, y, 0.34), -circle(x + 0.58, y, 0.1)), box(x - 0.25, y, 0.58, 0.09))
    for cx, depth in [(0.35, 0.12), (0.5, 0.18), (0.65, 0.1), (0.77, 0.16)]:
        body = np.minimum(body, box(x - cx, y - 0.08 - depth / 2, 0.045, depth))
    return place(table(rng, size), body, metal(rng, size, (0.7, 0.6, 0.4)), 0.04)


CATEGORIES = [fabric, granite, bearing, bolt, tomato, key]
