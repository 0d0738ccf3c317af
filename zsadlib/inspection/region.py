"""A region of interest: what lies outside has no say."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageStat

from zsadlib.datasets.images import load_grey


class Region:
    """A box, or a mask, in pixels of the upright photograph; photographs must all be taken alike.

    Outside a mask, but inside its bounding box, the picture is filled with the mean colour of the inside: nothing of the
    background is left.

    Args:
        roi: (left, top, right, bottom), or the file of a mask (inspected where it is above 127; its transparency says nothing,
            as in ``load_mask``), or such a mask as a bool array (height, width).

    Raises:
        ValueError: the box is empty or the mask has nothing to inspect.
    """

    def __init__(self, roi):
        self.mask = None
        if isinstance(roi, str | Path):
            roi = load_grey(Path(roi)) > 127
        if isinstance(roi, np.ndarray):
            if roi.ndim != 2 or not roi.any():
                raise ValueError("the mask of the region of interest is empty; paint white what is to be inspected")
            self.mask = roi.astype(bool)
            rows, columns = np.nonzero(self.mask.any(1))[0], np.nonzero(self.mask.any(0))[0]
            roi = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        self.box = tuple(map(int, roi))
        if (
            len(self.box) != 4
            or self.box[0] < 0
            or self.box[1] < 0
            or self.box[0] >= self.box[2]
            or self.box[1] >= self.box[3]
        ):
            raise ValueError(
                f"{self.box} is no region of interest; give left, top, right, bottom in pixels, 0,0 at the top left"
            )

    def cut(self, image):
        """The region of a photograph, as a picture of its own.

        Raises:
            ValueError: the photograph is smaller than the box, or of another size than the mask.
        """
        if self.mask is not None and image.size != self.mask.shape[::-1]:
            raise ValueError(
                f"it has {image.width} x {image.height} pixels and the region's mask {self.mask.shape[1]} x {self.mask.shape[0]}"
            )
        if self.box[2] > image.width or self.box[3] > image.height:
            raise ValueError(
                f"it has {image.width} x {image.height} pixels and the region of interest ends at {self.box[2:]}"
            )
        part = image.crop(self.box)
        if self.mask is None:
            return part
        inside = Image.fromarray(self.mask).crop(self.box).convert("L")
        colour = tuple(round(value) for value in ImageStat.Stat(part, inside).mean)
        return Image.composite(part, Image.new("RGB", part.size, colour), inside)

    def spread(self, anomaly_map, pixels):
        """A map (size, size) of the region as one, of the same size, of the whole photograph of ``pixels`` (width, height); 0
        outside the region."""
        size = anomaly_map.shape[0]
        whole = np.zeros(pixels[::-1], np.float32)
        left, top, right, bottom = self.box
        part = Image.fromarray(anomaly_map).resize((right - left, bottom - top), Image.BILINEAR)
        whole[top:bottom, left:right] = part
        if self.mask is not None:
            whole[~self.mask] = 0
        return np.asarray(Image.fromarray(whole).resize((size, size), Image.BILINEAR))
