"""Which photographs to look at, and reading them: a bad one is an error of its own and never the end of the others."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from zsadlib.datasets.images import IMAGE_SUFFIXES, load_image, to_rgb


@dataclass(frozen=True)
class Photograph:
    """A file, or a picture that is in memory already. ``path`` is how it is called in the table."""

    path: str
    picture: object = None

    @property
    def stamp(self):
        """What changes when the file does: [time of last change in ns, bytes]; None for a picture in memory."""
        try:
            status = Path(self.path).stat()
        except (OSError, ValueError):
            return None
        return None if self.picture is not None else [status.st_mtime_ns, status.st_size]

    def load(self):
        """The upright picture, 8-bit RGB.

        Raises:
            ValueError: it cannot be read.
        """
        if self.picture is None:
            return load_image(Path(self.path))
        if isinstance(self.picture, Image.Image):
            return to_rgb(self.picture)
        array = np.asarray(self.picture)
        colours = array.shape[2:] in ((), (3,)) and array.ndim > 1
        if array.dtype != np.uint8 or not colours or not array.size:
            raise ValueError(
                f"an array of type {array.dtype} and shape {array.shape} is no picture; give uint8, (height, width) or "
                "(height, width, 3)"
            )
        return Image.fromarray(array).convert("RGB")


def find_files(paths, without=None):
    """Files as given, folders by what is called like an image in them, recursively and sorted; ``without`` one folder (ours).

    What only looks like an image (a folder called "a.png", a hidden file) is listed too: it gets its own error when it is read.

    Raises:
        ValueError: a path does not exist, or there is nothing at all.
    """
    files = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            ours = without is not None and Path(without).resolve()
            inside = ours and path.resolve() in ours.parents
            files += [p for p in found if not (inside and ours in p.resolve().parents)]
        elif path.exists() or path.is_symlink():
            files.append(path)
        else:
            raise ValueError(f"{path} does not exist; give image files or folders with images")
    if not files:
        raise ValueError(
            f"no image in {', '.join(map(str, paths))}; known types are {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return files


def photographs(images):
    """A folder, a path, a picture (PIL or array), or several of these: list of ``Photograph``.

    Raises:
        ValueError: a path does not exist, or there is nothing at all.
    """
    several = [images] if isinstance(images, str | Path | Image.Image | np.ndarray) else list(images)
    found = []
    for one in several:
        if isinstance(one, str | Path):
            found += [Photograph(str(path)) for path in find_files([one])]
        else:
            found.append(Photograph(f"image {len(found) + 1}", one))
    if not found:
        raise ValueError("there is no photograph; give a folder, paths, PIL images or arrays")
    return found
