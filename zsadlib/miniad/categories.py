"""The normal objects and textures of MiniAD, one short function per category.

A category function takes ``(rng, size)`` and returns an image (size, size, 3), float32 in [0, 1], and the bool mask
(size, size) of the object (all True for a texture). ``SPLITS`` says which categories train the embedded model, on which
every choice is made (development) and which are only reported on (test).
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from zsadlib.miniad.anything import DESIGNS
from zsadlib.miniad.drawing import (
    box,
    cells,
    circle,
    colour,
    fractal,
    light,
    noise,
    photo_texture,
    place,
    polygon,
    pose,
    tint,
)


def _texture(image):
    return np.clip(image, 0, 1).astype(np.float32), np.ones(image.shape[:2], bool)


def _table(rng, size):
    """The ground an object lies on: nearly even, light or dark."""
    grey = rng.choice([rng.uniform(0.1, 0.25), rng.uniform(0.55, 0.9)])
    return tint(1 + 0.03 * fractal(rng, size, 0.1, 3), colour(rng, [grey] * 3, 0.06))


def _metal(rng, size, base=(0.62, 0.63, 0.65)):
    brushed = 1 + 0.04 * noise(rng, size, 0.002, 40) + 0.04 * noise(rng, size, 0.1)
    return tint(brushed, colour(rng, base, 0.12))


# ---------------------------------------------------------------------------------------------- textures, training


def wood(rng, size):
    x, y = pose(rng, size, turn=0.15)
    rings = np.sin(rng.uniform(9, 16) * (y + 0.12 * noise(rng, size, 0.12, 3)))
    grain = 1 + 0.10 * rings + 0.07 * noise(rng, size, 0.004, 25)
    return _texture(tint(grain, colour(rng, (0.58, 0.4, 0.24), 0.15)))


def leather(rng, size):
    gap, _ = cells(rng, size, int(rng.integers(500, 900)))
    bumps = gaussian_filter(np.minimum(gap, 0.8), 1.0)
    return _texture(tint(light(rng, bumps, 1.2) * (0.75 + 0.3 * bumps), colour(rng, (0.42, 0.27, 0.17), 0.25)))


def carpet(rng, size):
    x, y = pose(rng, size, turn=0.1)
    tufts = np.sin(x * 70) * np.sin(y * 70) + noise(rng, size, 0.006)
    return _texture(tint(1 + 0.16 * tufts, colour(rng, (0.45, 0.42, 0.40), 0.3)))


def gravel(rng, size):
    return _texture(photo_texture(rng, size, "gravel.png") * colour(rng, (0.9, 0.85, 0.8), 0.08))


def concrete(rng, size):
    pores = gaussian_filter((rng.random((size, size)) < 0.004).astype(np.float32), 0.8)
    grey = 1 + 0.08 * fractal(rng, size, 0.15, 5) - 0.5 * pores
    return _texture(tint(grey, colour(rng, (0.6, 0.59, 0.57), 0.2)))


def steel_sheet(rng, size):
    brushed = 1 + 0.06 * noise(rng, size, 0.002, 60) + 0.08 * noise(rng, size, 0.3)
    image = tint(brushed, colour(rng, (0.55, 0.56, 0.58), 0.3))
    return _texture(np.rot90(image) if rng.random() < 0.5 else image)


def wire_mesh(rng, size):
    x, y = pose(rng, size, turn=0.8)
    pitch = rng.uniform(9, 14)
    wires = np.maximum(np.cos(pitch * np.pi * x), np.cos(pitch * np.pi * y)) > 0.72
    metal = gaussian_filter(wires.astype(np.float32), 1.0)
    ground = tint(1 + 0.03 * noise(rng, size, 0.05), colour(rng, [rng.uniform(0.1, 0.85)] * 3, 0.1))
    return _texture(
        ground * (1 - metal[..., None]) + _metal(rng, size) * light(rng, metal, 0.8)[..., None] * metal[..., None]
    )


def paper(rng, size):
    fibres = 1 + 0.02 * noise(rng, size, 0.003, 8) + 0.025 * fractal(rng, size, 0.05)
    return _texture(tint(fibres, colour(rng, (0.85, 0.83, 0.78), 0.08)))


def marble(rng, size):
    x, y = pose(rng, size)
    veins = np.abs(np.sin(rng.uniform(3, 6) * (x + 0.5 * fractal(rng, size, 0.2)))) ** 0.25
    return _texture(tint(0.72 + 0.28 * gaussian_filter(veins, 1), colour(rng, (0.85, 0.84, 0.82), 0.1)))


def cork(rng, size):
    gap, index = cells(rng, size, int(rng.integers(250, 500)))
    grains = 1 + 0.14 * rng.standard_normal(1000)[index] - 0.35 * np.exp(-8 * gap)
    return _texture(tint(gaussian_filter(grains, 0.7), colour(rng, (0.66, 0.48, 0.31), 0.12)))


def rubber(rng, size):
    speckle = 1 + 0.15 * noise(rng, size, 0.004) + 0.08 * fractal(rng, size, 0.3)
    return _texture(tint(speckle, colour(rng, [rng.uniform(0.12, 0.35)] * 3, 0.1)))


def ceramic(rng, size):
    glaze = 1 + 0.05 * noise(rng, size, 0.35) + 0.01 * noise(rng, size, 0.003)
    return _texture(tint(glaze, colour(rng, rng.uniform(0.3, 0.9, 3), 0.1)))


def moon_rock(rng, size):
    return _texture(photo_texture(rng, size, "moon.png", (0.3, 0.5)) * rng.uniform(0.8, 1.5))


def tissue(rng, size):
    return _texture(photo_texture(rng, size, "ihc.png", (0.4, 0.8)) * colour(rng, (0.95, 0.95, 0.95), 0.06))


# ----------------------------------------------------------------------------------------------- objects, training


def washer(rng, size):
    x, y = pose(rng, size)
    ring = np.maximum(circle(x, y, 0.78), -circle(x, y, rng.uniform(0.3, 0.42)))
    return place(_table(rng, size), ring, _metal(rng, size))


def hex_nut(rng, size):
    x, y = pose(rng, size)
    hole = circle(x, y, rng.uniform(0.34, 0.42))
    thread = 1 + 0.25 * np.sin(90 * np.hypot(x, y)) * (np.abs(hole) < 0.06)
    return place(
        _table(rng, size), np.maximum(polygon(x, y, 0.68, 6), -hole), _metal(rng, size) * thread[..., None], 0.1
    )


def button(rng, size):
    x, y = pose(rng, size)
    body = circle(x, y, 0.76)
    for cx, cy in [(-1, -1), (-1, 1), (1, -1), (1, 1)]:
        body = np.maximum(body, -circle(x - 0.17 * cx, y - 0.17 * cy, 0.085))
    rim = 1 + 0.12 * (np.abs(np.hypot(x, y) - 0.55) < 0.05)
    plastic = tint(rim * (1 + 0.02 * noise(rng, size, 0.1)), colour(rng, rng.uniform(0.2, 0.9, 3)))
    return place(_table(rng, size), body, plastic, 0.12)


def pill(rng, size):
    x, y = pose(rng, size)
    body = box(x, y, 0.78, 0.42, 0.4)
    score = 1 - 0.15 * (np.abs(x) < 0.03)
    chalk = tint(score * (1 + 0.02 * noise(rng, size, 0.01)), colour(rng, (0.88, 0.85, 0.82), 0.08))
    return place(_table(rng, size), body, chalk, 0.2)


def gear(rng, size):
    x, y = pose(rng, size)
    teeth = int(rng.integers(10, 18))
    wave = np.clip(3 * np.sin(teeth * np.arctan2(y, x)), -1, 1)
    body = np.maximum(circle(x, y, 0.72) - 0.07 * wave, -circle(x, y, 0.2))
    groove = 1 - 0.15 * ((np.hypot(x, y) > 0.34) & (np.hypot(x, y) < 0.5))
    return place(_table(rng, size), body, _metal(rng, size) * groove[..., None], 0.06)


def bottle(rng, size):
    x, y = pose(rng, size)
    r = np.hypot(x, y)
    rings = 0.6 + 0.3 * np.exp(-((r - 0.68) ** 2) / 0.004) + 0.35 * np.exp(-((r - 0.5) ** 2) / 0.002) - 0.3 * (r < 0.42)
    glass = tint(rings * (1 + 0.03 * noise(rng, size, 0.15)), colour(rng, (0.5, 0.38, 0.2), 0.2))
    return place(_table(rng, size), circle(x, y, 0.82), glass, 0.05)


def coin(rng, size):
    x, y = pose(rng, size)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    relief = 0.5 * np.cos(6 * angle) * np.exp(-((r - 0.3) ** 2) / 0.02) + np.exp(-((r - 0.7) ** 2) / 0.001)
    relief += 0.5 * (np.sin(60 * angle) > 0) * (np.abs(r - 0.6) < 0.03)
    surface = _metal(rng, size, (0.68, 0.55, 0.35)) * light(rng, 4 * gaussian_filter(relief, 1), 0.4)[..., None]
    return place(_table(rng, size), circle(x, y, 0.8), surface, 0.04)


def leaf(rng, size):
    x, y = pose(rng, size, turn=0.6)
    width = 0.42 * np.cos(np.clip(x, -0.85, 0.85) * np.pi / 1.75) ** 0.8
    veins = np.exp(-(y**2) / 0.0006) + 0.5 * (np.sin(22 * (x - 0.7 * np.abs(y))) > 0.93)
    green = tint(
        1 + 0.25 * gaussian_filter(veins, 1) + 0.06 * fractal(rng, size, 0.06), colour(rng, (0.25, 0.45, 0.15), 0.15)
    )
    return place(_table(rng, size), np.maximum(np.abs(y) - width, np.abs(x) - 0.85), green, 0.05)


def computer_chip(rng, size):
    x, y = pose(rng, size, turn=0.1)
    pins = np.maximum(box(x, y, 0.78, 0.52), -np.cos(9 * np.pi * x) * 0.1)
    image, mask = place(_table(rng, size), pins, _metal(rng, size), 0.03)
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
    return place(_table(rng, size), body, tint(gaussian_filter(crumb, 0.8), colour(rng, (0.75, 0.55, 0.32), 0.1)), 0.2)


# ----------------------------------------------------------------------------------------------------- development


def fabric(rng, size):
    x, y = pose(rng, size, turn=0.1)
    twill = np.sin(65 * (x + y)) + 0.5 * np.sin(130 * x) * np.sin(130 * y) + 0.5 * noise(rng, size, 0.004)
    return _texture(tint(1 + 0.1 * twill, colour(rng, rng.uniform(0.3, 0.8, 3), 0.1)))


def granite(rng, size):
    _, index = cells(rng, size, 1500)
    minerals = np.array([0.25, 0.55, 0.75, 0.9])[rng.choice(4, 1500, p=[0.15, 0.35, 0.35, 0.15])][index]
    return _texture(tint(gaussian_filter(minerals, 0.8), colour(rng, (0.85, 0.8, 0.78), 0.08)))


def bearing(rng, size):
    x, y = pose(rng, size)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    ring = np.maximum(circle(x, y, 0.8), -circle(x, y, 0.3))
    balls = 0.6 * (np.cos(11 * angle) > 0.2) * (np.abs(r - 0.55) < 0.08)
    groove = np.where(np.abs(r - 0.55) < 0.11, 0.4, 1.0)
    return place(_table(rng, size), ring, _metal(rng, size) * gaussian_filter(groove + balls, 1)[..., None])


def bolt(rng, size):
    x, y = pose(rng, size)
    r = np.hypot(x, y)
    socket = np.where(polygon(x, y, 0.3, 6) < 0, 0.25, 1.0) * (1 + 0.08 * np.sin(40 * r) * (r > 0.5))
    return place(
        _table(rng, size), circle(x, y, 0.74), _metal(rng, size) * gaussian_filter(socket, 0.8)[..., None], 0.12
    )


def tomato(rng, size):
    x, y = pose(rng, size)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    skin = tint(1.1 - 0.35 * r**2 + 0.02 * noise(rng, size, 0.08), colour(rng, (0.75, 0.17, 0.1), 0.1))
    star = r < 0.12 + 0.14 * np.abs(np.cos(2.5 * angle)) ** 3
    skin = np.where(star[..., None], tint(1 + 0.1 * noise(rng, size, 0.02), (0.25, 0.42, 0.12)), skin)
    return place(_table(rng, size), circle(x, y, 0.76 + 0.02 * np.cos(5 * angle)), skin, 0.35)


def key(rng, size):
    x, y = pose(rng, size, turn=0.4)
    body = np.minimum(np.maximum(circle(x + 0.5, y, 0.34), -circle(x + 0.58, y, 0.1)), box(x - 0.25, y, 0.58, 0.09))
    for cx, depth in [(0.35, 0.12), (0.5, 0.18), (0.65, 0.1), (0.77, 0.16)]:
        body = np.minimum(body, box(x - cx, y - 0.08 - depth / 2, 0.045, depth))
    return place(_table(rng, size), body, _metal(rng, size, (0.7, 0.6, 0.4)), 0.04)


# ------------------------------------------------------------------------------------------------------------ test


def brick(rng, size):
    return _texture(photo_texture(rng, size, "brick.png", (0.5, 0.8)) * colour(rng, (0.95, 0.6, 0.5), 0.06))


def grass(rng, size):
    return _texture(photo_texture(rng, size, "grass.png", (0.4, 0.6)) * colour(rng, (0.75, 1.0, 0.5), 0.06))


def denim(rng, size):
    x, y = pose(rng, size, turn=0.08)
    weave = np.sin(95 * (x - 0.6 * y)) * (1 + 0.6 * noise(rng, size, 0.005, 3)) + 0.6 * noise(rng, size, 0.004, 12)
    return _texture(tint(1 + 0.12 * weave, colour(rng, (0.28, 0.38, 0.58), 0.12)))


def terrazzo(rng, size):
    gap, index = cells(rng, size, 120)
    chips = rng.uniform(0.35, 0.95, (120, 3)) * 0.35 + rng.uniform(0.3, 0.9, (120, 1)) * 0.65
    stone = gaussian_filter((gap > 0.28).astype(np.float32), 0.8)[..., None]
    return _texture(stone * chips[index] + (1 - stone) * tint(1 + 0.02 * noise(rng, size, 0.004), (0.8, 0.79, 0.76)))


def screw(rng, size):
    x, y = pose(rng, size)
    thread = 0.035 * np.abs(np.sin(24 * (x + 0.25 * y))) * (x > -0.3)
    shank = np.maximum(np.abs(y) - 0.13 + thread - 0.13 * np.clip((0.55 - x) / 0.3, -1, 0), np.abs(x - 0.1) - 0.72)
    head = np.maximum(box(x + 0.68, y, 0.14, 0.3, 0.05), -box(x + 0.86, y, 0.08, 0.05))
    stripes = 1 + 0.25 * np.sin(24 * (x + 0.25 * y) * 2) * (x > -0.3)
    return place(_table(rng, size), np.minimum(shank, head), _metal(rng, size) * stripes[..., None], 0.1)


def cable(rng, size):
    x, y = pose(rng, size, turn=np.pi)
    image, mask = place(
        _table(rng, size), circle(x, y, 0.82), tint(1 + 0.02 * noise(rng, size, 0.05), [0.75] * 3), 0.06
    )
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
    return place(_table(rng, size), circle(x, y, 0.84), surface, 0.08)


def hazelnut(rng, size):
    x, y = pose(rng, size)
    shell = np.hypot(x / 0.68, (y + 0.12 * x**2) / 0.76) - 1
    stripes = (
        1 + 0.12 * np.sin(26 * np.arctan2(y + 1.6, x) * 1.5 + noise(rng, size, 0.1)) + 0.08 * fractal(rng, size, 0.04)
    )
    cap = np.where(y > 0.45 + 0.03 * noise(rng, size, 0.03), 1.45, 1.0)
    nut = tint(stripes * gaussian_filter(cap, 1.5), colour(rng, (0.5, 0.31, 0.17), 0.1))
    return place(_table(rng, size), shell * 0.7, nut, 0.4)


def zipper(rng, size):
    x, y = pose(rng, size, turn=0.06)
    weave = tint(
        1 + 0.12 * np.sin(110 * x) * np.sin(110 * y) + 0.05 * noise(rng, size, 0.005), colour(rng, [0.22] * 3, 0.2)
    )
    image, mask = _texture(weave)
    for side, phase in [(-1, 0.0), (1, np.pi)]:
        teeth = np.maximum(np.abs(x - 0.1 * side) - 0.15, -np.sin(32 * y + phase) * 0.04)
        image, _ = place(image, teeth, _metal(rng, size), 0.03)
    return image, mask


# The embedded model sees training categories only; choices are made on development; test is reported once.
SPLITS = {
    "training": [
        wood, leather, carpet, gravel, concrete, steel_sheet, wire_mesh, paper, marble, cork, rubber, ceramic,
        moon_rock, tissue, washer, hex_nut, button, pill, gear, bottle, coin, leaf, computer_chip, cookie,
        *DESIGNS,
    ],
    "development": [fabric, granite, bearing, bolt, tomato, key],
    "test": [brick, grass, denim, terrazzo, screw, cable, plate, hazelnut, zipper],
}  # fmt: skip

CATEGORIES = {draw.__name__.replace("_", " "): draw for split in SPLITS.values() for draw in split}
