"""What training minimises: agreement of whole pictures (and of their crops) with captions. No mask and no patch label enters."""

import torch
from torch.nn import functional as F

from zsadlib.models import embedded
from zsadlib.models.encoded import window_indices
from zsadlib.training.pictures import GROUP


def contrastive_loss(image, text, scale, labels, states):
    """Multi-positive image-text contrast, both ways; among the captions about an image's own object; of its "good" and its
    "damaged"; and between the photographs of one drawing, of which "damaged" must fit the damaged ones better.

    Args:
        image: (batch, dim), text: (objects * states, dim), both L2-normalised. scale: logit scale.
        labels: (batch, 2) category and state; every ``GROUP`` rows show one drawing.
        states: captions per object; the last is the general "damaged".
    """
    category, state = labels.unbind(1)
    objects = len(text) // states
    object_of = torch.arange(objects).repeat_interleave(states)
    state_of = torch.arange(states).repeat(objects)
    same_object = object_of[None] == category[:, None]
    related = same_object | (object_of[None] == objects - 1)  # its own name, or "object", "surface", ...
    fits = (state_of[None] == state[:, None]) | ((state_of[None] == states - 1) & (state[:, None] > 0))
    logits = scale * image @ text.T
    positive = (related & fits).float()

    def cross_entropy(logits, target, keep=None):
        logits = logits if keep is None else logits.masked_fill(~keep, -1e4)
        return -(target * logits.log_softmax(1)).sum(1).div(target.sum(1)).mean()

    to_text = cross_entropy(logits, positive)
    within = cross_entropy(logits, positive, related)
    side = same_object & ((state_of == 0) | (state_of == states - 1))[None]
    verdict = cross_entropy(logits, (positive.bool() & side).float(), side)
    used = positive.sum(0) > 0
    to_image = cross_entropy(logits.T[used], positive.T[used])
    # of the photographs of one drawing, "damaged" must fit the damaged ones better than the intact ones
    own = torch.arange(len(image)), category * states
    lean = (logits[own[0], own[1] + states - 1] - logits[own[0], own[1]]).unflatten(0, (-1, GROUP))
    intact, damaged = lean[:, : GROUP // 2], lean[:, GROUP // 2 :]
    pairs = F.softplus(intact[:, :, None] - damaged[:, None]).mean()
    return to_text + to_image + within + verdict + pairs


def tile_loss(lean, damaged):
    """Every crop of an intact photograph must look intact, and at least one crop of a damaged one damaged.

    Args:
        lean: (batch, crops), logit of "damaged" less that of "good". damaged: (batch,) bool; which crop it is, nobody says.
    """
    return F.softplus(lean[~damaged]).mean() + F.softplus(-lean[damaged].amax(1)).mean()


def tiles(tokens, k, rng):
    """A photograph's tokens cut into crops of k x k without overlap, at a random offset: (batch, crops, 1 + k * k, width)."""
    top, left = rng.integers(embedded.GRID % k + 1, size=2)
    starts = embedded.GRID - k + 1
    index = window_indices(embedded.GRID, k).unflatten(0, (starts, starts))[top::k, left::k].flatten(0, 1)
    first = tokens[:, None, :1].expand(-1, len(index), -1, -1)
    return torch.cat([first, tokens[:, 1:][:, index]], 2)
