"""Objects and surfaces that are no particular thing: a new design on every draw.

They teach the embedded model that an unfamiliar structure is not a defect. Training categories only; what a drawing is made
of (symmetric cut-outs, grooves, prints, lattices, photographs) is regular or natural, what a defect adds is not.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from zsadlib.datasets.miniad import materials
from zsadlib.datasets.miniad.drawing import (
    bar,
    box,
    cells,
    circle,
    colour,
    cropped,
    fractal,
    grid,
    light,
    noise,
    photo_texture,
    place,
    polygon,
    pose,
    tint,
)

PHOTOGRAPHS = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "flower.jpg",
    "china.jpg",
    "motorcycle_left.png",
    "gravel.png",
)


def any_colour(rng):
    """Any RGB colour from grey to vivid."""
    vivid = rng.uniform(0.08, 0.95, 3)
    return vivid.mean() + rng.uniform(0, 1) * (vivid - vivid.mean())


def _photo(rng, size):
    """A crop of a photograph of a material, in a random tint."""
    photo = materials.material(materials.NAMES[rng.integers(len(materials.NAMES))])
    image = cropped(rng, size, photo, (0.15, 0.8))
    if rng.random() < 0.5:
        image = tint(image.mean(2) / max(image.mean(), 0.05), any_colour(rng))
    return np.clip(image * rng.uniform(0.6, 1.2), 0, 1)


def ground(rng, size):
    """What an object lies on: even or softly patterned, any brightness, sometimes a photographed material."""
    choice = rng.random()
    if choice < 0.1:
        return _photo(rng, size)
    if choice < 0.5:  # an even table
        return tint(1 + 0.03 * fractal(rng, size, 0.1, 3), colour(rng, [rng.uniform(0.05, 0.95)] * 3, 0.06))
    shade = 1 + rng.uniform(0, 0.06) * fractal(rng, size, rng.uniform(0.03, 0.2), 3)
    tone = colour(rng, [rng.uniform(0.05, 0.95)] * 3, 0.1) if rng.random() < 0.7 else any_colour(rng)
    return tint(shade, tone)


def _outline(rng, x, y):
    """A random regular outline as a distance field, about 0.8 in radius."""
    angle = np.arctan2(y, x)
    choice = rng.integers(7)
    if choice == 0:
        return circle(x, y, rng.uniform(0.5, 0.85))
    if choice == 1:
        return polygon(x, y, rng.uniform(0.5, 0.75), int(rng.integers(3, 9)))
    if choice == 2:
        return box(x, y, rng.uniform(0.3, 0.85), rng.uniform(0.15, 0.75), rng.uniform(0, 0.15))
    if choice == 3:
        wave = np.cos(int(rng.integers(3, 20)) * angle)
        return circle(x, y, 0.7 + rng.uniform(0.02, 0.12) * (np.clip(3 * wave, -1, 1) if rng.random() < 0.5 else wave))
    if choice == 4:  # arms around a hub
        arms = int(rng.integers(2, 6))
        turns = [2 * np.pi * i / arms for i in range(arms)]
        reach, width = rng.uniform(0.6, 0.8), rng.uniform(0.07, 0.2)
        parts = [bar(x, y, (0, 0), (reach * np.cos(t), reach * np.sin(t)), width) for t in turns]
        return np.minimum.reduce([*parts, circle(x, y, rng.uniform(0.2, 0.4))])
    if choice == 5:  # a long thing with a head
        shank = box(x, y, 0.8, rng.uniform(0.06, 0.2))
        return np.minimum(shank, circle(x + rng.uniform(0.4, 0.6), y, rng.uniform(0.2, 0.36)))
    stack = [box(x - rng.uniform(-0.5, 0.5), y, rng.uniform(0.15, 0.4), rng.uniform(0.15, 0.5)) for _ in range(3)]
    return np.minimum.reduce([*stack, box(x, y, 0.7, 0.12)])


def _cut_outs(rng, x, y, field):
    """Regular openings: one in the middle, or several around it or along a row."""
    r = np.hypot(x, y)
    if rng.random() < 0.5:
        field = np.maximum(field, -polygon(x, y, rng.uniform(0.08, 0.3), int(rng.choice([3, 4, 6, 24]))))
    if rng.random() < 0.4:
        count, orbit, radius = int(rng.integers(2, 9)), rng.uniform(0.35, 0.55), rng.uniform(0.03, 0.1)
        for t in 2 * np.pi * np.arange(count) / count:
            field = np.maximum(field, -circle(x - orbit * np.cos(t), y - orbit * np.sin(t), radius))
    if rng.random() < 0.2:
        pitch = rng.uniform(0.15, 0.4)
        slots = np.maximum(np.abs((x / pitch) % 1 - 0.5) * pitch - 0.03, np.abs(y) - rng.uniform(0.05, 0.3))
        field = np.maximum(field, np.where(r < 0.6, -slots, -1))
    return field


def _pattern(rng, size, x, y):
    """A brightness pattern around 1: brushed, grainy, ringed, striped, chequered, cellular or nothing."""
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    frequency, depth = rng.uniform(8, 90), rng.uniform(0.03, 0.3)
    wave = np.sin if rng.random() < 0.6 else (lambda v: np.sign(np.sin(v)))
    options = [
        lambda: noise(rng, size, 0.002, rng.uniform(5, 60)) * 0.3,
        lambda: fractal(rng, size, rng.uniform(0.005, 0.2)) * 0.5,
        lambda: wave(frequency * r),
        lambda: wave(int(rng.integers(5, 40)) * angle),
        lambda: wave(frequency * x),
        lambda: wave(frequency * x) * wave(frequency * y),
        lambda: wave(frequency * (x + 0.3 * y) + rng.uniform(0, 1) * noise(rng, size, 0.1)),
        lambda: np.tanh(3 * (cells(rng, size, int(rng.integers(40, 900)))[0] - 0.3)),
        lambda: cells_brightness(rng, size),
        lambda: np.zeros_like(x),
    ]
    return 1 + depth * options[rng.integers(len(options))]() + rng.uniform(0, 0.04) * noise(rng, size, 0.1)


def cells_brightness(rng, size):
    """Cells of random brightness (grains, terrazzo, scales)."""
    count = int(rng.integers(30, 1500))
    return rng.normal(0, 0.7, count)[cells(rng, size, count)[1]]


def _surface(rng, size, x, y, tone):
    """A coloured surface: a pattern, and perhaps a ring, band, disc or row of marks in a second tone."""
    choice = rng.random()
    if choice < 0.4:  # calm: an even or brushed surface
        brushed = rng.uniform(0, 0.05) * noise(rng, size, 0.002, rng.uniform(1, 50))
        surface = tint(1 + brushed + rng.uniform(0, 0.05) * noise(rng, size, 0.1), tone)
    else:
        surface = _photo(rng, size) if choice < 0.5 else tint(_pattern(rng, size, x, y), tone)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    if rng.random() < 0.4:  # a socket, or a ring of balls or pockets, darker or brighter than the rest
        inner = polygon(x, y, rng.uniform(0.15, 0.4), int(rng.choice([3, 4, 5, 6, 8, 24])))
        if rng.random() < 0.5:
            orbit, half, count = rng.uniform(0.3, 0.65), rng.uniform(0.04, 0.14), int(rng.integers(4, 24))
            inner = np.maximum(np.abs(r - orbit) - half, rng.uniform(-0.9, 0.9) - np.cos(count * angle))
        soft = gaussian_filter((inner < 0) * 1.0, 0.8)[..., None]
        surface = surface * (1 - soft) + surface * rng.uniform(0.15, 1.6) * soft
    for _ in range(rng.integers(0, 3)):
        at, width = rng.uniform(0.1, 0.7), rng.uniform(0.02, 0.15)
        region = [
            np.abs(r - at) < width,
            np.abs(y - at + 0.35) < width,
            r < at,
            (np.abs(r - at) < width) & (np.sin(int(rng.integers(3, 30)) * angle) > 0),
            polygon(x, y, at, int(rng.integers(3, 8))) < 0,
        ][rng.integers(5)]
        soft = gaussian_filter(region.astype(np.float32), rng.uniform(0.5, 2))[..., None]
        second = tint(_pattern(rng, size, x, y), np.clip(np.asarray(tone) * rng.uniform(0.4, 1.5), 0, 1))
        if rng.random() < 0.3:
            second = tint(_pattern(rng, size, x, y), any_colour(rng))
        surface = surface * (1 - soft) + second * soft
    return surface


def _part(rng, size, tone):
    image = ground(rng, size)
    where = np.zeros((size, size), bool)
    x, y = pose(rng, size)
    for layer in range(1 if rng.random() < 0.6 else 2):
        zoom = 1 if layer == 0 else rng.uniform(0.3, 0.7)
        field = _cut_outs(rng, x, y, _outline(rng, x / zoom, y / zoom) * zoom)
        surface = _surface(rng, size, x, y, tone if layer == 0 else colour(rng, tone, 0.4))
        image, mask = place(image, field, surface, rng.uniform(0.02, 0.35), rng.uniform(0, 6.3), rng.uniform(0, 0.4))
        where |= mask
    return image, where


def machine_part(rng, size):
    return _part(rng, size, colour(rng, [rng.uniform(0.25, 0.75)] * 3, 0.25))


def plastic_part(rng, size):
    return _part(rng, size, any_colour(rng))


def fruit(rng, size):
    x, y = pose(rng, size)
    angle = np.arctan2(y, x)
    wobble = sum(rng.normal(0, 0.03) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (1, 2, 3, 5))
    field = np.hypot(x / rng.uniform(0.6, 1), y) - rng.uniform(0.6, 0.8) - wobble
    skin = _surface(rng, size, x, y, any_colour(rng)) * (1.15 - rng.uniform(0, 0.5) * np.hypot(x, y) ** 2)[..., None]
    return place(ground(rng, size), field, np.clip(skin, 0, 1), rng.uniform(0.2, 0.5), rng.uniform(0, 6.3))


def patterned_surface(rng, size):
    x, y = pose(rng, size)
    image = tint(_pattern(rng, size, x, y) * _pattern(rng, size, x, y), colour(rng, any_colour(rng), 0.1))
    return np.clip(image, 0, 1).astype(np.float32), np.ones((size, size), bool)


def rough_surface(rng, size):
    height = fractal(rng, size, rng.uniform(0.01, 0.15), 5) * rng.uniform(0.5, 3)
    shade = light(rng, height, rng.uniform(0.2, 0.8)) * (
        1 + rng.uniform(0, 0.15) * fractal(rng, size, rng.uniform(0.02, 0.3))
    )
    image = tint(shade, colour(rng, [rng.uniform(0.1, 0.85)] * 3, 0.3))
    return np.clip(image, 0, 1).astype(np.float32), np.ones((size, size), bool)


def tool(rng, size):
    """A long thing: its outline is a chain of sections, smooth or toothed, the two sides alike or not."""
    x, y = pose(rng, size, scale=0.15)
    reach, sections = rng.uniform(0.6, 0.9), int(rng.integers(2, 6))
    cuts = np.sort(rng.uniform(-reach, reach, sections - 1))
    section = np.searchsorted(cuts, x)
    teeth = np.where(rng.random(sections) < 0.4, rng.uniform(0.01, 0.06, sections), 0)
    pitch, lean = rng.uniform(15, 60), rng.uniform(-0.4, 0.4)
    wave = np.sin(pitch * (x + lean * y))
    wave = np.sign(wave) if rng.random() < 0.3 else wave

    def half_width():
        at = np.concatenate([[-reach], cuts, [reach]])
        widths = rng.uniform(0.05, 0.3, sections + 1)
        steps = widths[section] if rng.random() < 0.6 else np.interp(x, at, widths)
        return steps + teeth[section] * wave

    above = half_width()
    below = above if rng.random() < 0.6 else half_width()
    field = np.maximum(np.maximum(y - above, -y - below), np.abs(x) - reach)
    if rng.random() < 0.4:
        field = np.minimum(field, _outline(rng, (x - reach + 0.3) / 0.45, y / 0.45) * 0.45)
    if rng.random() < 0.4:
        field = np.maximum(field, -polygon(x - rng.uniform(-reach, reach), y, rng.uniform(0.04, 0.1), 24))
    tone = colour(rng, [rng.uniform(0.25, 0.8)] * 3, 0.2) if rng.random() < 0.6 else any_colour(rng)
    surface = _surface(rng, size, x, y, tone) * (1 + rng.uniform(0, 0.3) * wave * (teeth[section] > 0))[..., None]
    return place(ground(rng, size), field, np.clip(surface, 0, 1), rng.uniform(0.02, 0.2), rng.uniform(0, 6.3))


def assembly(rng, size):
    """Several like parts in a ring, a row or a grid, on a carrier or bare."""
    x, y = pose(rng, size)
    image, where = ground(rng, size), np.zeros((size, size), bool)
    if rng.random() < 0.7:
        field = circle(x, y, 0.85) if rng.random() < 0.5 else box(x, y, 0.85, rng.uniform(0.5, 0.85), 0.1)
        surface = _surface(rng, size, x, y, any_colour(rng))
        image, where = place(image, field, surface, rng.uniform(0.02, 0.1), rng.uniform(0, 6.3))
    count = int(rng.integers(2, 8))
    turns = 2 * np.pi * np.arange(count) / count
    centers = [
        np.stack([np.cos(turns), np.sin(turns)], 1) * rng.uniform(0.35, 0.55),
        np.stack([np.linspace(-0.6, 0.6, count), np.zeros(count)], 1),
        np.stack(np.meshgrid([-0.45, 0.0, 0.45], [-0.45, 0.0, 0.45]), -1).reshape(-1, 2),
    ][rng.integers(3)]
    gap = min(np.hypot(*(a - b)) for i, a in enumerate(centers) for b in centers[:i])
    radius, angle = gap * rng.uniform(0.3, 0.5), rng.uniform(0, 6.3)
    key, like = int(rng.integers(1 << 30)), rng.random() < 0.5
    tones = [any_colour(rng) for _ in centers]
    for (cx, cy), tone in zip(centers, tones, strict=True):
        same = np.random.default_rng(key)  # every part has the same outlines
        for zoom in (1.0, 0.6)[: 1 + key % 2]:
            scale = radius * zoom / 0.85
            field = _outline(same, (x - cx) / scale, (y - cy) / scale) * scale
            surface = _surface(rng, size, x - cx, y - cy, tones[0] if like else tone)
            image, mask = place(image, field, surface if zoom == 1 else surface[::-1] * 0.8, 0.03, angle)
            where |= mask
    return image, where


def cast_surface(rng, size):
    """Grey industrial surfaces: uneven light, grain, grinding marks, cloudy tone."""
    marks = rng.uniform(0, 0.08) * noise(rng, size, rng.uniform(0.002, 0.01), rng.uniform(1, 60))
    cloud = rng.uniform(0, 0.1) * fractal(rng, size, rng.uniform(0.05, 0.3))
    x, y = pose(rng, size)
    falloff = rng.uniform(0, 0.4) * x - rng.uniform(0, 0.3) * np.hypot(x, y)
    grain = rng.uniform(0, 0.12) * gaussian_filter(rng.standard_normal((size, size)), rng.uniform(0.3, 1.5))
    image = tint(1 + marks + cloud + falloff + grain, colour(rng, [rng.uniform(0.15, 0.75)] * 3, 0.1))
    image = np.rot90(image) if rng.random() < 0.5 else image
    return np.clip(image, 0, 1).astype(np.float32), np.ones((size, size), bool)


def material_sample(rng, size):
    return _photo(rng, size).astype(np.float32), np.ones((size, size), bool)


def tiled_surface(rng, size):
    """Square or six-sided tiles with joints, each tile a little different."""
    x, y = pose(rng, size)
    pitch = rng.uniform(0.12, 0.6)
    u, v = (x / pitch, y / pitch) if rng.random() < 0.5 else (x / pitch + 0.5 * y / pitch, y / pitch)
    column, row = np.floor(u).astype(int), np.floor(v).astype(int)
    edge = np.minimum.reduce([u - column, 1 + column - u, v - row, 1 + row - v]) * pitch
    tones = rng.normal(1, rng.uniform(0, 0.15), (64, 64, 1)) * any_colour(rng)
    face = tones[row % 64, column % 64] * _pattern(rng, size, x, y)[..., None]
    joint = np.clip((edge - rng.uniform(0.005, 0.03)) * size / 4, 0, 1)[..., None]
    image = face * joint + rng.uniform(0.1, 0.9) * (1 - joint)
    return np.clip(image, 0, 1).astype(np.float32), np.ones((size, size), bool)


def printed_label(rng, size):
    """Lines of marks like writing on an even ground."""
    _, y = grid(size)
    paper, ink = any_colour(rng), any_colour(rng)
    lines, boldness = rng.uniform(3, 12), rng.uniform(0, 0.4)
    letters = noise(rng, size, rng.uniform(0.008, 0.03)) + 0.7 * noise(rng, size, 0.06)
    marks = gaussian_filter(((letters > boldness) & (np.sin(lines * np.pi * y) > rng.uniform(0, 0.6))) * 1.0, 0.7)
    image = tint(1 + 0.03 * noise(rng, size, 0.1), paper) * (1 - marks[..., None]) + ink * marks[..., None]
    image = np.rot90(image, int(rng.integers(4)))
    return np.clip(image, 0, 1).astype(np.float32), np.ones((size, size), bool)


def granules(rng, size):
    """A heap of grains, seeds or beads: rounded cells, lit from one side."""
    count = int(rng.integers(30, 600))
    gap, index = cells(rng, size, count)
    height = np.sqrt(np.clip(gap, 0, 1)) * size / np.sqrt(count) * rng.uniform(0.2, 0.8)
    tones = np.clip(rng.normal(1, rng.uniform(0, 0.25), (count, 1)) * any_colour(rng), 0, 1)
    shade = light(rng, gaussian_filter(height, 0.8), rng.uniform(0.2, 0.7)) * np.clip(0.3 + gap * 1.5, 0.3, 1)
    return np.clip(tones[index] * shade[..., None], 0, 1).astype(np.float32), np.ones((size, size), bool)


def photo_print(rng, size):
    image = photo_texture(rng, size, PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))], (0.12, 0.5))
    return np.clip(image * rng.uniform(0.7, 1.2), 0, 1).astype(np.float32), np.ones((size, size), bool)


DESIGNS = [  # objects, then surfaces
    machine_part, plastic_part, fruit, tool, assembly, patterned_surface, rough_surface, cast_surface, material_sample,
    tiled_surface, printed_label, granules, photo_print,
]  # fmt: skip
