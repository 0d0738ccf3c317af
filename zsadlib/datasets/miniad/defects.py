"""The defects of MiniAD, one short function per kind.

A defect function takes ``(rng, image, where, strength)``: the image (size, size, 3), the bool mask of the object, and a
strength from 0 (faint) to 1 (plain). It returns the damaged image and its opacity (size, size) in [0, 1]; ``damage``
turns that into the ground-truth mask and rejects what nobody could see.
"""

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from zsadlib.datasets.miniad.drawing import circle, fractal, grid, noise

MASK_OPACITY = 0.25  # a pixel belongs to the defect where its opacity is above this
VISIBLE = 0.03  # smallest mean change of intensity inside the mask


class Invisible(RuntimeError):
    """A defect that cannot be seen on this surface (a swirl in an even colour)."""


def _spot(rng, where, margin=0.03):
    """A random point of the object, away from its border: ``x, y`` in [-1, 1]."""
    depth = distance_transform_edt(np.pad(where, 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(depth > min(margin * len(where), 0.6 * depth.max()))
    i = rng.integers(len(rows))
    return 2 * columns[i] / (len(where) - 1) - 1, 2 * rows[i] / (len(where) - 1) - 1


def _blob(rng, where, radius, rough=0.25, stretch=1.0, soft=0.02):
    """Opacity of an irregular blob on the object."""
    size = len(where)
    cx, cy = _spot(rng, where)
    x, y = grid(size)
    x, y, angle = x - cx, y - cy, rng.uniform(0, np.pi)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    field = np.hypot(u / stretch, v) - radius * (1 + rough * noise(rng, size, 0.06))
    return np.clip(0.5 - field / soft, 0, 1) * where


def _walk(rng, where, length, wiggle, steps=60):
    """Points (steps, 2) of a wandering line that starts on the object."""
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, wiggle, steps))
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * length / steps, 0)
    return path - path[steps // 2] + _spot(rng, where)


def _line(points, where, width):
    """Opacity of a polyline; ``width`` is its half width in image units (2 = the whole image)."""
    size = len(where)
    fine = np.stack([np.interp(np.linspace(0, 1, 6 * size), np.linspace(0, 1, len(points)), p) for p in points.T], 1)
    pixels = np.rint((fine + 1) / 2 * (size - 1)).astype(int)
    pixels = pixels[((pixels >= 0) & (pixels < size)).all(1)]
    canvas = np.ones((size, size), bool)
    canvas[pixels[:, 1], pixels[:, 0]] = False
    distance = distance_transform_edt(canvas) * 2 / size if len(pixels) else np.full((size, size), 9.0)
    return np.clip(1.2 - distance / max(width, 1.2 / size), 0, 1) * where


def _mix(image, colour, alpha, opacity=1.0):
    alpha = (alpha * opacity)[..., None]
    return image * (1 - alpha) + np.asarray(colour, np.float32) * alpha


def _contrast(rng, image, alpha, strength):
    """A grey that stands out from the image under ``alpha``, darker or brighter."""
    level = float((image.mean(2) * alpha).sum() / (alpha.sum() + 1e-6))
    step = rng.uniform(0.2, 0.3) + 0.4 * strength
    darker = level - step if level - step > 0 or level > 0.5 else level + step
    brighter = level + step if level + step < 1 or level < 0.5 else level - step
    return np.clip([darker if rng.random() < 0.6 else brighter] * 3 + rng.normal(0, 0.02, 3), 0, 1)


def scratch(rng, image, where, strength):
    alpha = np.zeros(where.shape)
    for _ in range(rng.integers(1, 4)):
        path = _walk(rng, where, rng.uniform(0.4, 1.1), 0.02)
        alpha = np.maximum(alpha, _line(path, where, rng.uniform(0.006, 0.018)))
    return _mix(image, _contrast(rng, image, alpha, strength), alpha, 0.5 + 0.5 * strength), alpha


def crack(rng, image, where, strength):
    path = _walk(rng, where, rng.uniform(0.6, 1.5), 0.35)
    alpha = _line(path, where, rng.uniform(0.01, 0.02))
    for _ in range(rng.integers(0, 3)):
        start = rng.integers(15, 45)
        branch = _walk(rng, where, rng.uniform(0.2, 0.5), 0.35, 30)
        alpha = np.maximum(alpha, _line(branch - branch[0] + path[start], where, 0.01))
    return _mix(image, image * 0.25, alpha, 0.6 + 0.4 * strength), alpha


def hole(rng, image, where, strength):
    alpha, pits = np.zeros(where.shape), rng.integers(1, 4)
    for _ in range(pits):
        radius = rng.uniform(0.035, 0.15) / np.sqrt(pits)
        alpha = np.maximum(alpha, _blob(rng, where, radius, 0.12, rng.uniform(1, 1.6)))
    rim = np.clip(gaussian_filter(alpha, 2) * 2 - alpha, 0, 0.4) * where
    floor = rng.uniform(0.02, 0.5 - 0.3 * strength) * image.mean((0, 1))
    return _mix(image * (1 + 0.4 * rim[..., None]), floor, alpha), alpha


def stain(rng, image, where, strength):
    alpha = _blob(rng, where, rng.uniform(0.1, 0.28), 0.3, rng.uniform(1, 1.5), 0.08)
    pigment = rng.uniform(0.1, 0.9, 3) if rng.random() < 0.6 else [rng.uniform(0.1, 0.9)] * 3
    return _mix(image, image * (0.2 + np.asarray(pigment)) * 0.8, alpha, 0.45 + 0.55 * strength), alpha


def _relief(rng, image, where, strength, sign):
    size, alpha = len(where), _blob(rng, where, rng.uniform(0.08, 0.22), 0.1, rng.uniform(1, 1.5), 0.06)
    dy, dx = np.gradient(gaussian_filter(alpha, size / 60) * size * 0.09)
    angle = rng.uniform(0, 2 * np.pi)
    shade = sign * (0.3 + 0.6 * strength) * (np.cos(angle) * dx + np.sin(angle) * dy)
    return image * np.clip(1 + shade + 0.08 * sign * alpha, 0.2, 2)[..., None], np.clip(
        alpha + 0.6 * np.abs(shade), 0, 1
    ) * where


def dent(rng, image, where, strength):
    return _relief(rng, image, where, strength, -1)


def bump(rng, image, where, strength):
    return _relief(rng, image, where, strength, 1)


def chip(rng, image, where, strength):
    """A piece broken out: of an object's border (the ground shows), or of a texture (a rough pit)."""
    if where.all():
        alpha = _blob(rng, where, rng.uniform(0.1, 0.25), 0.35, 1.3, 0.015)
        rough = image.mean((0, 1)) * (rng.uniform(0.45, 0.75) + 0.15 * fractal(rng, len(where), 0.04))[..., None]
        return _mix(image, rough, alpha, 0.6 + 0.4 * strength), alpha
    border = where & (distance_transform_edt(where) < 2)
    cx, cy = _spot(rng, border, 0)
    x, y = grid(len(where))
    field = circle(x - cx, y - cy, rng.uniform(0.1, 0.28)) - 0.04 * noise(rng, len(where), 0.05)
    alpha = np.clip(0.5 - field / 0.02, 0, 1) * where
    ground = image[~where].mean(0) if (~where).any() else image.mean((0, 1))
    return _mix(image, ground * (1 + 0.02 * noise(rng, len(where), 0.03))[..., None], alpha), alpha


def contamination(rng, image, where, strength):
    alpha = np.zeros(where.shape)
    for _ in range(rng.integers(2, 9)):
        alpha = np.maximum(alpha, _blob(rng, where, rng.uniform(0.02, 0.055), 0.3, rng.uniform(1, 2)))
    particles = rng.uniform(0, 1, 3) if rng.random() < 0.5 else _contrast(rng, image, alpha, strength)
    return _mix(image, particles, alpha, 0.5 + 0.5 * strength), alpha


def discolouration(rng, image, where, strength):
    alpha = _blob(rng, where, rng.uniform(0.2, 0.5), 0.3, rng.uniform(1, 1.5), 0.15)
    gain = 1 + rng.choice([-1, 1]) * (0.15 + 0.35 * strength) * rng.uniform(0.6, 1) + rng.normal(0, 0.12, 3)
    return image * (1 + alpha[..., None] * (gain - 1)), alpha


def cut(rng, image, where, strength):
    path = _walk(rng, where, rng.uniform(0.3, 0.9), 0.0)
    alpha = _line(path, where, rng.uniform(0.012, 0.022))
    lit = np.roll(alpha, (2, 2), (0, 1)) * where
    return _mix(
        _mix(image, [0.95] * 3, lit, 0.3 + 0.5 * strength), image * 0.15, alpha, 0.7 + 0.3 * strength
    ), np.maximum(alpha, lit)


def smear(rng, image, where, strength):
    size, alpha = len(where), _blob(rng, where, rng.uniform(0.15, 0.3), 0.2, 1.6, 0.08)
    sigma = size * (0.02 + 0.05 * strength)
    dragged = gaussian_filter(image, (sigma, 1.0, 0) if rng.random() < 0.5 else (1.0, sigma, 0))
    return _mix(image, dragged * rng.uniform(0.75, 1.15), alpha), alpha


def bend(rng, image, where, strength):
    """The structure is swirled or pinched in one place."""
    size, (cx, cy) = len(where), _spot(rng, where)
    x, y = grid(size)
    reach = rng.uniform(0.25, 0.45)
    fall = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (reach / 2) ** 2)
    turn, pull = (0.6 + 0.9 * strength) * rng.choice([-1, 1]) * fall, 0.25 * strength * fall
    u = cx + (1 - pull) * (np.cos(turn) * (x - cx) - np.sin(turn) * (y - cy))
    v = cy + (1 - pull) * (np.sin(turn) * (x - cx) + np.cos(turn) * (y - cy))
    at = np.stack([(v + 1) / 2 * (size - 1), (u + 1) / 2 * (size - 1)])
    warped = np.stack([map_coordinates(image[..., c], at, order=1, mode="nearest") for c in range(3)], 2)
    changed = gaussian_filter(np.abs(warped - image).mean(2), 2) > 0.02
    return warped, (changed & (fall > 0.25)).astype(np.float32)


def worn(rng, image, where, strength):
    """The surface's own structure is rubbed off."""
    alpha = _blob(rng, where, rng.uniform(0.15, 0.35), 0.3, 1.3, 0.08)
    flat = gaussian_filter(image, (len(where) / 12, len(where) / 12, 0)) * rng.uniform(1.05, 1.25)
    return _mix(image, flat, alpha, 0.6 + 0.4 * strength), alpha


def burn(rng, image, where, strength):
    alpha = _blob(rng, where, rng.uniform(0.1, 0.25), 0.25, 1.2, 0.15)
    scorched = _mix(image, image * np.asarray([0.5, 0.35, 0.2]), np.clip(alpha * 2, 0, 1), 0.6 + 0.4 * strength)
    return _mix(scorched, [0.06, 0.05, 0.04], np.clip(2 * alpha - 1, 0, 1), 0.4 + 0.5 * strength), alpha


def thread(rng, image, where, strength):
    alpha = _line(_walk(rng, where, rng.uniform(0.8, 2.0), 0.12), where, rng.uniform(0.008, 0.016))
    fibre = rng.uniform(0, 1, 3) if rng.random() < 0.5 else _contrast(rng, image, alpha, strength)
    return _mix(image, fibre, alpha, 0.6 + 0.4 * strength), alpha


def broken(rng, image, where, strength):
    """Broken in two along a line: one side is shifted."""
    size, (cx, cy), angle = len(where), _spot(rng, where, 0.1), rng.uniform(0, np.pi)
    x, y = grid(size)
    side = np.cos(angle) * (y - cy) - np.sin(angle) * (x - cx) + 0.03 * noise(rng, size, 0.08)
    step = int(size * (0.02 + 0.04 * strength))
    offset = (int(round(step * np.sin(angle))), int(round(step * np.cos(angle))))
    shifted = np.where((side > 0)[..., None], np.roll(image, offset, (0, 1)), image)
    gap = np.clip(1.3 - np.abs(side) / 0.02, 0, 1) * where
    moved = (np.abs(shifted - image).mean(2) > 0.08) & (np.abs(side) < 0.12) & where
    return _mix(shifted, image.mean((0, 1)) * 0.15, gap, 0.9), np.maximum(gap, gaussian_filter(moved * 1.0, 1))


KINDS = {
    f.__name__: f
    for f in (
        scratch, crack, hole, stain, dent, bump, chip, contamination, discolouration, cut, smear, bend, worn, burn,
        thread, broken,
    )
}  # fmt: skip


def damage(rng, image, where, kind, strength):
    """Apply one defect and return the image and its ground-truth mask.

    Args:
        image: (size, size, 3) float32 in [0, 1]. where: (size, size) bool, the object.
        kind: a name in ``KINDS``. strength: 0 (faint) to 1 (plain).

    Returns:
        The damaged image, clipped to [0, 1], and the mask (size, size), bool: it covers at least 0.05 % of the image
        and the mean change inside is at least ``VISIBLE``. A draw that misses this is repeated a little stronger.

    Raises:
        Invisible: 30 draws changed nothing that one could see.
    """
    for attempt in range(30):
        changed, opacity = KINDS[kind](rng, image, where, min(1.0, strength + 0.1 * attempt))
        changed, mask = np.clip(changed, 0, 1).astype(np.float32), opacity > MASK_OPACITY
        if mask.mean() >= 5e-4 and np.abs(changed - image).mean(2)[mask].mean() >= VISIBLE:
            return changed, mask
    raise Invisible(f"no visible '{kind}' could be drawn in 30 attempts; use another seed or a larger image")
