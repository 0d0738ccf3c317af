"""Pixels in: one image or mask file, read safely.

What comes from outside may be damaged, enormous or not what its name says. Only the decoders of ``FORMATS`` are ever started, and
whatever is wrong with a file ends in one ValueError.
"""

import contextlib
import math
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # a decoder of Pillow that starts another program is not among them
RESOURCE_FORK = b"\x00\x05\x16\x07"  # how a macOS file "._name" begins


def load_image(path):
    """An image file as upright 8-bit RGB.

    The orientation of its EXIF data is applied, and what is transparent is laid on white. 16-bit greys are divided by 257 (taken
    as they are if none is above 255), floating-point greys stretched from their own range.

    Raises:
        ValueError: the file is missing, is not an image, is cut short, cannot be read or has too many pixels.
    """
    with _decoded(path) as image:
        return _rgb(image)


def to_rgb(image):
    """A picture (PIL) in memory as ``load_image`` would give it: upright 8-bit RGB.

    Raises:
        ValueError: its pixels cannot be read.
    """
    try:
        return _rgb(_upright(image))
    except Exception as error:  # it may still be a file whose pixels were never decoded
        raise ValueError(_sentence("the picture", error)) from None


def load_grey(path):
    """The grey values of a mask file, upright: (height, width) uint8. Transparency says nothing.

    Raises:
        ValueError: as ``load_image``.
    """
    with _decoded(path) as image:
        return np.asarray(_rgb(image, transparent=False).convert("L"))


def load_mask(sample, size):
    """Ground truth of a sample as a bool array (size, size); all False for a normal image (nearest-neighbour resizing).

    A mask is turned as its own EXIF data say, like a photograph, so that what looks alike in a viewer lies on each other. Its
    transparency says nothing: only its colours count.
    """
    if sample.mask_path is None:
        if sample.label:
            raise ValueError(f"{sample.path} is defective but has no mask; pixel metrics need masks")
        return np.zeros((size, size), bool)
    if sample.palette:
        with _decoded(sample.mask_path) as image:
            mask = np.asarray(image if image.mode in ("P", "L") else image.convert("L")) > 0
    else:
        mask = load_grey(sample.mask_path) > 127
    return np.asarray(Image.fromarray(mask).resize((size, size), Image.NEAREST))


@contextlib.contextmanager
def _decoded(path):
    """The upright pixels of a file, as Pillow has them; what fails here or in the block is one ValueError."""
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):  # opening a named pipe would wait for ever
            raise ValueError("it is a folder" if stat.S_ISDIR(mode) else "it is a pipe or a device, not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whether Pillow is content or not: a picture is read, or refused
            with open(path, "rb") as file, _opened(file) as image:
                image.load()
                upright = _upright(image)
        yield upright
    except Exception as error:  # a decoder may fail in any way over what somebody made up
        raise ValueError(_sentence(path, error)) from None


def _opened(file):
    """A picture whose pixels are not decoded yet; not by its path: Pillow would map some TIFF files into memory, turned wrong."""
    head = file.read(len(RESOURCE_FORK))
    if not head:
        raise ValueError("it is empty")
    if head == RESOURCE_FORK:
        raise ValueError("it is what macOS keeps beside a file (a resource fork), not a photograph; leave it out")
    file.seek(0)
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError
    return image


def _upright(image):
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data say nothing about the pixels, and these are whole
        return image.copy()


def _rgb(image, transparent=True):
    """A decoded picture as 8-bit RGB, with what is ``transparent`` on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float64)
        if not np.isfinite(grey).all():
            raise ValueError("it holds NaN or infinity")
        if image.mode.startswith("I;16") or image.mode == "I":
            low, high = 0, 65535 if grey.max() > 255 else 255
        else:
            low, high = float(grey.min()), float(grey.max()) or 1.0
        scaled = np.clip((grey - low) / max(high - low, 1e-9), 0, 1) * 255
        if transparent and isinstance(clear := image.info.get("transparency"), int):
            scaled[grey == clear] = 255
        return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")
    if transparent and image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _sentence(path, error):
    """What is wrong with a file, in one sentence."""
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist"
    if isinstance(error, Image.DecompressionBombError):
        most = Image.MAX_IMAGE_PIXELS / 1e6
        return f"{path} cannot be read as an image: it has more than {most:.0f} million pixels; make it smaller"
    if isinstance(error, UnidentifiedImageError):
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        return f"{path} cannot be read as an image: it is no {known}, or damaged from its beginning"
    if isinstance(error, MemoryError):
        return f"{path} cannot be read as an image: it does not fit into the memory"
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return f"{path} cannot be read as an image: {reason}"
