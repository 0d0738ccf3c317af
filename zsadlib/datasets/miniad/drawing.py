"""Drawing primitives of MiniAD: noise, photographs, distance fields and light.

Every function works on square arrays of side ``size``; images are float32 RGB in [0, 1], coordinates run from -1 to 1
over the image, and every random decision comes from the ``numpy.random.Generator`` that is passed in.
"""

from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
import sklearn.datasets
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree


def grid(size):
    """Coordinates ``x, y``, each (size, size), from -1 (left, top) to 1 (right, bottom)."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    return np.meshgrid(axis, axis)


def pose(rng, size, turn=np.pi, shift=0.06, scale=0.08):
    """Object coordinates after a random rotation (+-``turn`` radians), shift and scale: ``x, y``."""
    x, y = grid(size)
    x, y = x - rng.uniform(-shift, shift), y - rng.uniform(-shift, shift)
    angle, zoom = rng.uniform(-turn, turn), rng.uniform(1 - scale, 1 + scale)
    return (np.cos(angle) * x + np.sin(angle) * y) / zoom, (np.cos(angle) * y - np.sin(angle) * x) / zoom


def noise(rng, size, grain, stretch=1.0):
    """Smooth noise (size, size), zero mean and unit variance; ``grain`` is its length as a fraction of the image.

    ``stretch`` > 1 draws it out along x (fibres, brush marks). Coarse noise is filtered on a coarse raster and resized.
    """
    sigma = np.array([grain, grain * stretch]) * size
    coarse = np.maximum(np.ceil(size * np.minimum(1, 2 / np.maximum(sigma, 1e-6))), 8).astype(int)
    field = gaussian_filter(rng.standard_normal(coarse).astype(np.float32), sigma * coarse / size, mode="wrap")
    if tuple(coarse) != (size, size):
        field = np.asarray(Image.fromarray(field).resize((size, size), Image.BICUBIC))
    return (field - field.mean()) / (field.std() + 1e-6)


def fractal(rng, size, grain, octaves=4):
    """Sum of ``octaves`` noises, each half as long and 0.6 times as strong as the one before; unit variance."""
    field = sum(0.6**i * noise(rng, size, grain / 2**i) for i in range(octaves))
    return field / (field.std() + 1e-6)


def cells(rng, size, count):
    """Voronoi cells: ``gap`` (size, size), 0 on the borders between cells, and each pixel's cell number."""
    points = rng.uniform(-1.1, 1.1, (count, 2))
    x, y = grid(size)
    distance, index = cKDTree(points).query(np.stack([x.ravel(), y.ravel()], 1), k=2)
    gap = (distance[:, 1] - distance[:, 0]) * np.sqrt(count)
    return gap.reshape(size, size).astype(np.float32), index[:, 0].reshape(size, size)


@cache
def photograph(name):
    """A photograph that scikit-image or scikit-learn ships, float32 RGB in [0, 1]."""
    folder = Path(sklearn.datasets.__file__).parent / "images" if name in ("flower.jpg", "china.jpg") else None
    path = (folder or Path(skimage.data.__file__).parent) / name
    return np.asarray(Image.open(path).convert("RGB"), np.float32) / 255


def photo_texture(rng, size, name, side=(0.4, 0.7)):
    """A random square crop of ``photograph(name)``, ``side`` giving its length as a fraction of the photo's short side."""
    return cropped(rng, size, photograph(name), side)


def cropped(rng, size, photo, side):
    """A random square crop of a photo (height, width, 3) in [0, 1], resized to ``size``; ``side`` as in ``photo_texture``."""
    length = int(rng.uniform(*side) * min(photo.shape[:2]))
    top, left = (rng.integers(0, n - length + 1) for n in photo.shape[:2])
    crop = Image.fromarray((photo[top : top + length, left : left + length] * 255).astype(np.uint8))
    image = np.asarray(crop.resize((size, size), Image.BICUBIC), np.float32) / 255
    return image[:, ::-1] if rng.random() < 0.5 else image


def tint(value, colour):
    """Grey values (size, size) around 1.0 times an RGB ``colour``: (size, size, 3)."""
    return value[..., None] * np.asarray(colour, np.float32)


def colour(rng, base, spread=0.05):
    """An RGB colour near ``base``: its brightness varies by ``spread``, each channel by a sixth of that."""
    base = np.asarray(base, np.float32) * (1 + rng.normal(0, spread))
    return np.clip(base + rng.normal(0, spread / 6, 3), 0.02, 0.98).astype(np.float32)


def light(rng, height, depth=1.0, angle=None):
    """Shading factor (size, size) around 1.0 of a height field lit from one side."""
    angle = rng.uniform(0, 2 * np.pi) if angle is None else angle
    dy, dx = np.gradient(height)
    return np.clip(1 + depth * (np.cos(angle) * dx + np.sin(angle) * dy), 0.3, 1.8)


# Signed distance fields: negative inside, positive outside. Union is np.minimum, cutting b from a is np.maximum(a, -b).


def circle(x, y, radius):
    return np.hypot(x, y) - radius


def box(x, y, width, height, rounding=0.0):
    dx, dy = np.abs(x) - width + rounding, np.abs(y) - height + rounding
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - rounding


def polygon(x, y, radius, sides):
    angle = np.arctan2(y, x)
    step = 2 * np.pi / sides
    return np.cos(np.floor(0.5 + angle / step) * step - angle) * np.hypot(x, y) - radius


def bar(x, y, start, end, radius):
    """A round-ended bar between two points."""
    (ax, ay), (bx, by) = start, end
    along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2), 0, 1)
    return np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)) - radius


def place(background, field, surface, bevel=0.06, angle=0.8, shadow=0.35):
    """Draw an object on ``background``: ``surface`` inside ``field`` < 0, with a bevelled edge and a cast shadow.

    Returns the image (size, size, 3) and the object's mask (size, size), bool.
    """
    size = field.shape[0]
    edge = 3.0 / size
    alpha = np.clip(0.5 - field / edge, 0, 1)[..., None]
    cast = gaussian_filter(np.roll((field < 0).astype(np.float32), (size // 48, size // 48), (0, 1)), size / 60)
    height = np.sqrt(np.clip(1 - np.clip(1 + field / bevel, 0, 1) ** 2, 0, 1)) * bevel * size
    dy, dx = np.gradient(gaussian_filter(height, size / 200))
    shade = np.clip(1 - 0.35 * (np.cos(angle) * dx + np.sin(angle) * dy), 0.5, 1.5)[..., None]
    ground = background * (1 - shadow * cast[..., None])
    return np.clip(ground * (1 - alpha) + surface * shade * alpha, 0, 1).astype(np.float32), field < 0


def texture(image):
    return np.clip(image, 0, 1).astype(np.float32), np.ones(image.shape[:2], bool)


def table(rng, size):
    """The ground an object lies on: nearly even, light or dark."""
    grey = rng.choice([rng.uniform(0.1, 0.25), rng.uniform(0.55, 0.9)])
    return tint(1 + 0.03 * fractal(rng, size, 0.1, 3), colour(rng, [grey] * 3, 0.06))


def metal(rng, size, base=(0.62, 0.63, 0.65)):
    brushed = 1 + 0.04 * noise(rng, size, 0.002, 40) + 0.04 * noise(rng, size, 0.1)
    return tint(brushed, colour(rng, base, 0.12))
