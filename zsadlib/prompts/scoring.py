"""Which prompts count for an image: contextual scoring, the run-time prompt adaptation of ALFA.

The paper states the idea (an image's similarity to every prompt decides which prompts count, so that cross-semantic
ambiguity is removed); the formulas below are *reconstructions*, readings of it behind one interface: a reading takes
image embeddings and a prompt ensemble and returns weights over the prompts of each side.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from zsadlib.models import store
from zsadlib.prompts.banks import SHORT_TEMPLATES, STATIC_ABNORMAL, STATIC_NORMAL, TEMPLATES, load_bank

SCORE_TEMPERATURE = 0.07  # WinCLIP's
SALIENCE_TEMPERATURE = 0.1
KEEP_AT_LEAST = 3


@dataclass(frozen=True)
class PromptEnsemble:
    """The prompts of one category and their L2-normalised text embeddings.

    ``normal`` and ``abnormal`` are sentences; ``t_normal`` (n, dim) and ``t_abnormal`` (a, dim) belong to them.
    ``axis`` (dim,) and ``midpoint`` (dim,) span normal -> abnormal by the static state prompts: they tell the sides
    apart independently of the ensemble's own prompts.
    """

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    t_normal: torch.Tensor
    t_abnormal: torch.Tensor
    axis: torch.Tensor
    midpoint: torch.Tensor

    def side(self, embeddings):
        """Position of text embeddings (..., dim) along the axis: positive is abnormal, negative is normal."""
        return (embeddings - self.midpoint) @ self.axis


def embed_prompts(backbone, prompts, templates=TEMPLATES):
    """One embedding per prompt: the mean over the templates, un-normalised as in WinCLIP, then normalised: (n, dim)."""
    texts = [template.format(prompt) for prompt in prompts for template in templates]
    embeddings = store.encode_text(backbone, texts, normalize=False)
    return F.normalize(embeddings.unflatten(0, (len(prompts), len(templates))).mean(1), dim=-1)


def side_embedding(backbone, prompts, templates=TEMPLATES):
    """One embedding for a whole side, (1, dim): mean over prompts and templates, un-normalised, then normalised (WinCLIP)."""
    texts = [template.format(prompt) for prompt in prompts for template in templates]
    return F.normalize(store.encode_text(backbone, texts, normalize=False).mean(0, keepdim=True), dim=-1)


def build_ensemble(backbone, category, normal, abnormal, templates=TEMPLATES):
    """Embed the prompts of both sides and the static axis for ``category``: ``PromptEnsemble``.

    Raises:
        ValueError: a side has no prompt.
    """
    if not normal or not abnormal:
        raise ValueError(
            f"category '{category}' has {len(normal)} normal and {len(abnormal)} abnormal prompts; each side needs one"
        )
    prompts = [*normal, *abnormal, *(s.format(category) for s in STATIC_NORMAL + STATIC_ABNORMAL)]
    unique = sorted(set(prompts))  # in one order, so that a bank whose sides were swapped is the same list to the store
    vectors = dict(zip(unique, embed_prompts(backbone, unique, templates), strict=True))
    t = torch.stack([vectors[p] for p in prompts])
    n, a = len(normal), len(abnormal)
    center_normal = F.normalize(t[n + a : n + a + len(STATIC_NORMAL)].mean(0), dim=-1)
    center_abnormal = F.normalize(t[n + a + len(STATIC_NORMAL) :].mean(0), dim=-1)
    axis = F.normalize(center_abnormal - center_normal, dim=-1)
    return PromptEnsemble(
        tuple(normal), tuple(abnormal), t[:n], t[n : n + a], axis, (center_normal + center_abnormal) / 2
    )


def bank_ensemble(backbone, category, *banks, templates=SHORT_TEMPLATES):
    """``build_ensemble`` from the recorded prompts of one or more banks ("static", "gemma-3-270m"), joined in order."""
    return join_answers(
        backbone, category, [load_bank(bank, category).answers for bank in dict.fromkeys(banks)], templates
    )


def join_answers(backbone, category, answers, templates=SHORT_TEMPLATES):
    """``build_ensemble`` from several ``prompts.banks.Answers``, joined in order."""
    normal, abnormal = ([prompt for a in answers for prompt in getattr(a, side)] for side in ("normal", "abnormal"))
    return build_ensemble(backbone, category, normal, abnormal, templates)


def _keep(mask, value):
    """Uniform weights (batch, n) over ``mask``; where a row is empty, over its ``KEEP_AT_LEAST`` largest ``value``."""
    top = torch.zeros_like(mask).scatter(1, value.topk(min(KEEP_AT_LEAST, value.shape[1]), dim=1).indices, True)
    mask = torch.where(mask.any(1, keepdim=True), mask, top).float()
    return mask / mask.sum(1, keepdim=True)


def mean(image, ensemble):
    """No adaptation: every prompt counts the same (the WinCLIP baseline)."""
    sides = ensemble.t_normal, ensemble.t_abnormal
    return tuple(image.new_full((len(image), len(t)), 1 / len(t)) for t in sides)


def overlap(image, ensemble):
    """Drop, per image, the prompts in the intersection of the normal and the abnormal similarity interval.

    The most literal reading of the paper; a side that empties keeps its most similar prompts. (Reconstruction.)
    """
    s_normal, s_abnormal = image @ ensemble.t_normal.T, image @ ensemble.t_abnormal.T
    low = torch.maximum(s_normal.amin(1), s_abnormal.amin(1))[:, None]
    high = torch.minimum(s_normal.amax(1), s_abnormal.amax(1))[:, None]
    return tuple(_keep((s < low) | (s > high), s) for s in (s_normal, s_abnormal))


def _own_side(ensemble):
    """Which prompts lie on their own side of the static axis: bool (n,), (a,). Image-independent."""
    return ensemble.side(ensemble.t_normal) < 0, ensemble.side(ensemble.t_abnormal) > 0


def anchor(image, ensemble):
    """Drop the prompts on the wrong side of the axis that the static state prompts span. (Reconstruction.)"""
    own_normal, own_abnormal = _own_side(ensemble)
    return (
        _keep(own_normal.expand(len(image), -1), -ensemble.side(ensemble.t_normal).expand(len(image), -1)),
        _keep(own_abnormal.expand(len(image), -1), ensemble.side(ensemble.t_abnormal).expand(len(image), -1)),
    )


def salience(image, ensemble, temperature=SALIENCE_TEMPERATURE):
    """After ``anchor``, weigh each side by softmax(similarity / temperature): what this image shows. (Reconstruction.)"""
    weights = []
    for kept, t in zip(anchor(image, ensemble), (ensemble.t_normal, ensemble.t_abnormal), strict=True):
        logits = (image @ t.T / temperature).masked_fill(kept == 0, float("-inf"))
        weights.append(logits.softmax(1))
    return tuple(weights)


def top_half(image, ensemble):
    """After ``anchor``, keep per image the more similar half of what is left of each side. (Reconstruction.)"""
    weights = []
    for kept, t in zip(anchor(image, ensemble), (ensemble.t_normal, ensemble.t_abnormal), strict=True):
        s = (image @ t.T).masked_fill(kept == 0, -2)
        middle = s.sort(1, descending=True).values.gather(1, (((kept > 0).sum(1) + 1) // 2 - 1)[:, None])
        weights.append(_keep((s >= middle) & (kept > 0), s))
    return tuple(weights)


def margin(image, ensemble, temperature=SALIENCE_TEMPERATURE):
    """Weigh each prompt by how much the image prefers it to the most similar sentence of the other side.

    softmax of (similarity - similarity of the nearest opposite prompt) / temperature within each side. Needs no static axis.
    On the side that fits the image, a prompt that says nearly what the other side says loses; on the other side, where every
    clear prompt fits worse than its opposite, it wins. (This project's own.)
    """
    alike = ensemble.t_normal @ ensemble.t_abnormal.T
    s_normal, s_abnormal = image @ ensemble.t_normal.T, image @ ensemble.t_abnormal.T
    over_normal, over_abnormal = s_abnormal[:, alike.argmax(1)], s_normal[:, alike.argmax(0)]
    return tuple(((s - o) / temperature).softmax(1) for s, o in ((s_normal, over_normal), (s_abnormal, over_abnormal)))


def typical(image, ensemble, temperature=SALIENCE_TEMPERATURE):
    """``anchor`` made soft: weigh prompts by softmax(distance on their own side of the axis / temperature). Image-independent.

    (This project's own: what remains of ``salience`` when the image has no say.)
    """
    sides = -ensemble.side(ensemble.t_normal), ensemble.side(ensemble.t_abnormal)
    return tuple((side / temperature).softmax(0).expand(len(image), -1) for side in sides)


READINGS = {f.__name__: f for f in (mean, overlap, anchor, top_half, salience, margin, typical)}


def adapt(image, ensemble, reading="mean"):
    """Text embeddings adapted to each image.

    Args:
        image: (batch, dim) L2-normalised image embeddings. reading: a name in ``READINGS``, or a function like them.

    Returns:
        normal and abnormal text embeddings, each (batch, dim), L2-normalised.
    """
    weigh = reading if callable(reading) else READINGS.get(reading)
    if weigh is None:
        raise ValueError(f"unknown reading of contextual scoring '{reading}'; choose one of {', '.join(READINGS)}")
    w_normal, w_abnormal = weigh(image, ensemble)
    return F.normalize(w_normal @ ensemble.t_normal, dim=-1), F.normalize(w_abnormal @ ensemble.t_abnormal, dim=-1)


def anomaly_score(embeddings, t_normal, t_abnormal, temperature=SCORE_TEMPERATURE):
    """P(abnormal) = softmax of the two cosines over ``temperature``.

    Args:
        embeddings: (batch, dim) or (batch, places, dim), L2-normalised. t_normal, t_abnormal: (batch, dim).

    Returns:
        Scores (batch,) or (batch, places) in [0, 1].
    """
    difference = t_abnormal - t_normal
    if embeddings.ndim == 3:
        difference = difference[:, None]
    return torch.sigmoid((embeddings * difference).sum(-1) / temperature)
