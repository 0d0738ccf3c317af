"""What the vision tower made of images, and how a method says what it needs of it.

A *need* is a pair (kind, number): ("windows", k), the embeddings of all k x k windows of patches, (batch, windows, dim),
L2-normalised; ("layers", i), the patch tokens (batch, grid * grid, width) as they leave block i, counted from 1, before the final
norm; ("values", n), patch tokens of a second path through the last n blocks (``Backbone.encode_value_attention``); ("oddness",
0), how unlike the rest of its own image each place is, (batch, grid * grid, channels) in [0, 2] (``Backbone.encode_oddness``).
"""

from dataclasses import dataclass, field
from functools import cache

import torch
from torch.nn import functional as F

KINDS = ("windows", "layers", "values", "oddness")


def windows(*sizes):
    """The need for windows of these sides."""
    return tuple(("windows", k) for k in sizes)


def layers(*blocks):
    """The need for the patch tokens of these blocks, counted from 1."""
    return tuple(("layers", i) for i in blocks)


def values(*numbers):
    """The need for value attention in these numbers of last blocks."""
    return tuple(("values", n) for n in numbers)


def oddness():
    """The need for the oddness of places; there is one, so its number says nothing."""
    return (("oddness", 0),)


def needs_of(methods):
    """What several methods need together, in an order of its own."""
    return tuple(sorted({need for method in methods for need in method.needs}))


@dataclass(frozen=True)
class Encoded:
    """What the vision tower made of a batch.

    Attributes:
        image: (batch, dim), L2-normalised. patches: (batch, grid * grid, width), after the final norm.
        extra: what was needed beyond them, need -> tensor (batch, ...): ``encoded.extra["windows", 2]``.
    """

    image: torch.Tensor
    patches: torch.Tensor
    extra: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)

    def __getitem__(self, rows):
        """The same for some of its images."""
        return Encoded(
            self.image[rows], self.patches[rows], {need: tensor[rows] for need, tensor in self.extra.items()}
        )

    def only(self, needs=()):
        """The same without what is not among ``needs``."""
        return Encoded(self.image, self.patches, {need: self.extra[need] for need in needs})

    @classmethod
    def join(cls, parts):
        """One of many batches, in order."""
        parts = list(parts)
        extra = {need: torch.cat([part.extra[need] for part in parts]) for need in parts[0].extra}
        return cls(torch.cat([p.image for p in parts]), torch.cat([p.patches for p in parts]), extra)


@cache
def window_indices(grid, k):
    """Patch indices (windows, k * k) of all k x k windows of a grid x grid map, stride 1, row by row."""
    if not 1 <= k <= grid:
        raise ValueError(f"a window of {k} patches does not fit a grid of {grid}; choose 1 to {grid}")
    index = torch.arange(grid * grid).view(1, 1, grid, grid).float()
    return F.unfold(index, k)[0].T.long()
