"""The categories that the embedded model is trained on: named objects and textures, and ``anything``'s random designs.

A category function takes ``(rng, size)`` and returns an image (size, size, 3), float32 in [0, 1], and the bool mask
(size, size) of the object (all True for a texture).
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from zsadlib.datasets.miniad.anything import DESIGNS
from zsadlib.datasets.miniad.drawing import (
    box,
    cells,
    circle,
    colour,
    fractal,
    light,
    metal,
    noise,
    photo_texture,
    place,
    polygon,
    pose,
    table,
    texture,
    tint,
)


def wood(rng, size):
    x, y = pose(rng, size, turn=0.15)
    rings = np.sin(rng.uniform(9, 16) * (y + 0.12 * noise(rng, size, 0.12, 3)))
    grain = 1 + 0.10 * rings + 0.07 * noise(rng, size, 0.004, 25)
    return texture(tint(grain, colour(rng, (0.58, 0.4, 0.24), 0.15)))


def leather(rng, size):
    gap, _ = cells(rng, size, int(rng.integers(500, 900)))
    bumps = gaussian_filter(np.minimum(gap, 0.8), 1.0)
    return texture(tint(light(rng, bumps, 1.2) * (0.75 + 0.3 * bumps), colour(rng, (0.42, 0.27, 0.17), 0.25)))


def carpet(rng, size):
    x, y = pose(rng, size, turn=0.1)
    tufts = np.sin(x * 70) * np.sin(y * 70) + noise(rng, size, 0.006)
    return texture(tint(1 + 0.16 * tufts, colour(rng, (0.45, 0.42, 0.40), 0.3)))


def gravel(rng, size):
    return texture(photo_texture(rng, size, "gravel.png") * colour(rng, (0.9, 0.85, 0.8), 0.08))


def concrete(rng, size):
    pores = gaussian_filter((rng.random((size, size)) < 0.004).astype(np.float32), 0.8)
    grey = 1 + 0.08 * fractal(rng, size, 0.15, 5) - 0.5 * pores
    return texture(tint(grey, colour(rng, (0.6, 0.59, 0.57), 0.2)))


def steel_sheet(rng, size):
    brushed = 1 + 0.06 * noise(rng, size, 0.002, 60) + 0.08 * noise(rng, size, 0.3)
    image = tint(brushed, colour(rng, (0.55, 0.56, 0.58), 0.3))
    return texture(np.rot90(image) if rng.random() < 0.5 else image)


def wire_mesh(rng, size):
    x, y = pose(rng, size, turn=0.8)
    pitch = rng.uniform(9, 14)
    wires = np.maximum(np.cos(pitch * np.pi * x), np.cos(pitch * np.pi * y)) > 0.72
    mesh = gaussian_filter(wires.astype(np.float32), 1.0)
    ground = tint(1 + 0.03 * noise(rng, size, 0.05), colour(rng, [rng.uniform(0.1, 0.85)] * 3, 0.1))
    return texture(
        ground * (1 - mesh[..., None]) + metal(rng, size) * light(rng, mesh, 0.8)[..., None] * mesh[..., None]
    )


def paper(rng, size):
    fibres = 1 + 0.02 * noise(rng, size, 0.003, 8) + 0.025 * fractal(rng, size, 0.05)
    return texture(tint(fibres, colour(rng, (0.85, 0.83, 0.78), 0.08)))


def marble(rng, size):
    x, y = pose(rng, size)
    veins = np.abs(np.sin(rng.uniform(3, 6) * (x + 0.5 * fractal(rng, size, 0.2)))) ** 0.25
    return texture(tint(0.72 + 0.28 * gaussian_filter(veins, 1), colour(rng, (0.85, 0.84, 0.82), 0.1)))


def cork(rng, size):
    gap, index = cells(rng, size, int(rng.integers(250, 500)))
    grains = 1 + 0.14 * rng.standard_normal(1000)[index] - 0.35 * np.exp(-8 * gap)
    return texture(tint(gaussian_filter(grains, 0.7), colour(rng, (0.66, 0.48, 0.31), 0.12)))


def rubber(rng, size):
    speckle = 1 + 0.15 * noise(rng, size, 0.004) + 0.08 * fractal(rng, size, 0.3)
    return texture(tint(speckle, colour(rng, [rng.uniform(0.12, 0.35)] * 3, 0.1)))


def ceramic(rng, size):
    glaze = 1 + 0.05 * noise(rng, size, 0.35) + 0.01 * noise(rng, size, 0.003)
    return texture(tint(glaze, colour(rng, rng.uniform(0.3, 0.9, 3), 0.1)))


def moon_rock(rng, size):
    return texture(photo_texture(rng, size, "moon.png", (0.3, 0.5)) * rng.uniform(0.8, 1.5))


def tissue(rng, size):
    return texture(photo_texture(rng, size, "ihc.png", (0.4, 0.8)) * colour(rng, (0.95, 0.95, 0.95), 0.06))


def washer(rng, size):
    x, y = pose(rng, size)
    ring = np.maximum(circle(x, y, 0.78), -circle(x, y, rng.uniform(0.3, 0.42)))
    return place(table(rng, size), ring, metal(rng, size))


def hex_nut(rng, size):
    x, y = pose(rng, size)
    hole = circle(x, y, rng.uniform(0.34, 0.42))
    thread = 1 + 0.25 * np.sin(90 * np.hypot(x, y)) * (np.abs(hole) < 0.06)
    return place(table(rng, size), np.maximum(polygon(x, y, 0.68, 6), -hole), metal(rng, size) * thread[..., None], 0.1)


def button(rng, size):
    x, y = pose(rng, size)
    body = circle(x, y, 0.76)
    for cx, cy in [(-1, -1), (-1, 1), (1, -1), (1, 1)]:
        body = np.maximum(body, -circle(x - 0.17 * cx, y - 0.17 * cy, 0.085))
    rim = 1 + 0.12 * (np.abs(np.hypot(x, y) - 0.55) < 0.05)
    plastic = tint(rim * (1 + 0.02 * noise(rng, size, 0.1)), colour(rng, rng.uniform(0.2, 0.9, 3)))
    return place(table(rng, size), body, plastic, 0.12)


def pill(rng, size):
    x, y = pose(rng, size)
    body = box(x, y, 0.78, 0.42, 0.4)
    score = 1 - 0.15 * (np.abs(x) < 0.03)
    chalk = tint(score * (1 + 0.02 * noise(rng, size, 0.01)), colour(rng, (0.88, 0.85, 0.82), 0.08))
    return place(table(rng, size), body, chalk, 0.2)


def gear(rng, size):
    x, y = pose(rng, size)
    teeth = int(rng.integers(10, 18))
    wave = np.clip(3 * np.sin(teeth * np.arctan2(y, x)), -1, 1)
    body = np.maximum(circle(x, y, 0.72) - 0.07 * wave, -circle(x, y, 0.2))
    groove = 1 - 0.15 * ((np.hypot(x, y) > 0.34) & (np.hypot(x, y) < 0.5))
    return place(table(rng, size), body, metal(rng, size) * groove[..., None], 0.06)


def bottle(rng, size):
    x, y = pose(rng, size)
    r = np.hypot(x, y)
    rings = 0.6 + 0.3 * np.exp(-((r - 0.68) ** 2) / 0.004) + 0.35 * np.exp(-((r - 0.5) ** 2) / 0.002) - 0.3 * (r < 0.42)
    glass = tint(rings * (1 + 0.03 * noise(rng, size, 0.15)), colour(rng, (0.5, 0.38, 0.2), 0.2))
    return place(table(rng, size), circle(x, y, 0.82), glass, 0.05)


def coin(rng, size):
    x, y = pose(rng, size)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    relief = 0.5 * np.cos(6 * angle) * np.exp(-((r - 0.3) ** 2) / 0.02) + np.exp(-((r - 0.7) ** 2) / 0.001)
    relief += 0.5 * (np.sin(60 * angle) > 0) * (np.abs(r - 0.6) < 0.03)
    surface = metal(rng, size, (0.68, 0.55, 0.35)) * light(rng, 4 * gaussian_filter(relief, 1), 0.4)[..., None]
    return place(table(rng, size), circle(x, y, 0.8), surface, 0.04)


def leaf(rng, size):
    x, y = pose(rng, size, turn=0.6)
    width = 0.42 * np.cos(np.clip(x, -0.85, 0.85) * np.pi / 1.75) ** 0.8
    veins = np.exp(-(y**2) / 0.0006) + 0.5 * (np.sin(22 * (x - 0.7 * np.abs(y))) > 0.93)
    green = tint(
        1 + 0.25 * gaussian_filter(veins, 1) + 0.06 * fractal(rng, size, 0.06), colour(rng, (0.25, 0.45, 0.15), 0.15)
    )
    return place(table(rng, size), np.maximum(np.abs(y) - width, np.abs(x) - 0.85), green, 0.05)


def computer_chip(rng, size):
    x, y = pose(rng, size, turn=0.1)
    pins = np.maximum(box(x, y, 0.78, 0.52), -np.cos(9 * np.pi * x) * 0.1)
    image, mask = place(table(rng, size), pins, metal(rng, size), 0.03)
    body = box(x, y, 0.74, 0.42, 0.02)
    epoxy = tint(1 + 0.08 * noise(rng, size, 0.004), colour(rng, [0.16] * 3, 0.15))
    epoxy = np.where((circle(x + 0.6, y + 0.28, 0.05) < 0)[..., None], 0.3, epoxy)
    image, inner = place(image, body, epoxy, 0.04, shadow=0.2)
    return image, mask | inner


def cookie(rng, size):
    x, y = pose(rng, size)
    body = circle(x, y, 0.74 + 0.02 * np.sin(7 * np.arctan2(y, x)))
    crumb = 1 + 0.12 * fractal(rng, size, 0.03)
    for cx, cy in rng.uniform(-0.55, 0.55, (9, 2)):
        crumb = np.where(circle(x - cx, y - cy, 0.07) < 0, 0.4, crumb)
    return place(table(rng, size), body, tint(gaussian_filter(crumb, 0.8), colour(rng, (0.75, 0.55, 0.32), 0.1)), 0.2)


CATEGORIES = [
    wood, leather, carpet, gravel, concrete, steel_sheet, wire_mesh, paper, marble, cork, rubber, ceramic, moon_rock, tissue,
    washer, hex_nut, button, pill, gear, bottle, coin, leaf, computer_chip, cookie, *DESIGNS,
]  # fmt: skip
