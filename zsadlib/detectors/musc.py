"""MuSc (Li et al., ICLR 2024): every image of an unlabelled test set is judged by all the others. No words, no training.

*Transductive*: a score depends on which other images are in the folder, so its rows are marked in every table. The authors
rescore with 1, 2 and 3 neighbours on MVTec AD and with 1, 8 and 9 on VisA; here it is 1, 2 and 3 everywhere, because nothing is
chosen on a test set.
"""

import torch
from torch.nn import functional as F

from zsadlib.detectors.base import MAP_SIZE, Detector, Scores, Sees
from zsadlib.models import encoded as need

NEIGHBOURHOODS = (1, 3, 5)
NEAREST_IMAGES = 0.3
RESCORING = (1, 2, 3)


def local_aggregation(tokens, r):
    """LNAMD: patch tokens (images, grid * grid, width) averaged over r x r neighbours (zeros outside), then L2-normalised."""
    images, places, width = tokens.shape
    grid = int(places**0.5)
    x = tokens.transpose(1, 2).unflatten(2, (grid, grid))
    x = F.layer_norm(x, x.shape[1:])
    x = F.avg_pool2d(x, r, 1, r // 2)  # padding counts as zeros
    return F.normalize(x.flatten(2).transpose(1, 2), dim=-1)


def mutual_scores(tokens, share=NEAREST_IMAGES):
    """MSM: for each patch the mean distance to the nearest patches of the most similar images.

    Args:
        tokens: (images, patches, width), L2-normalised. share: of the other images that count, the nearest first (at least one).

    Returns:
        (images, patches): the mean, over that share of images, of the smallest Euclidean distance to a patch of the image.
    """
    count = len(tokens)
    if count < 2:
        raise ValueError("MuSc compares images of one set; it needs two or more")
    nearest = tokens.new_empty(count, tokens.shape[1], count).fill_(-1)  # largest cosine of a patch to each other image
    for i, own in enumerate(tokens[:-1]):
        cosine = (own @ tokens[i + 1 :].flatten(0, 1).T).unflatten(1, (count - i - 1, -1))
        nearest[i, :, i + 1 :] = cosine.amax(2)
        nearest[i + 1 :, :, i] = cosine.amax(0)  # each pair of images is compared once
    chosen = nearest.topk(max(1, int((count - 1) * share)), 2).values
    return (2 - 2 * chosen).clamp_min(0).sqrt().mean(2)  # the distance of unit vectors


def rescore(scores, image, neighbours=RESCORING):
    """RsCIN: an image's score, scaled to [0, 1] over the set, averaged with those of its k nearest images (itself included).

    Args:
        scores: (images,). image: (images, dim), L2-normalised global embeddings. neighbours: values of k; their results are
            averaged, weights are the cosine similarities.
    """
    scaled = (scores - scores.min()) / (scores.max() - scores.min()).clamp_min(1e-12)
    similarity, results = image @ image.T, []
    for k in neighbours:
        top = similarity.topk(min(k, len(scores)), 1)
        weights = top.values / top.values.sum(1, keepdim=True)
        results.append((weights * scaled[top.indices]).sum(1))
    return torch.stack(results).mean(0)


class MuSc(Detector):
    """MuSc on any backbone. ``score`` must be given a whole test set: its images judge one another. Patch scores are distances.

    Args:
        layers: blocks whose patch tokens are compared, counted from 1.
    """

    name, sees = "musc", frozenset({Sees.TEST_SET})

    def __init__(self, backbone, map_size=MAP_SIZE, layers=(1,)):
        super().__init__(backbone, map_size)
        self.needs = need.layers(*layers)

    @classmethod
    def from_profile(cls, profile, backbone):
        return cls(backbone, profile.map_size, profile.layers)

    def prepare(self, category, support=None):
        if support is not None:
            raise ValueError("musc takes no support images: it sees the unlabelled test set")
        return self

    def score(self, encoded):
        patches = 0
        for layer in self.needs:
            tokens = encoded.extra[layer].to(self.backbone.device)
            patches = patches + sum(mutual_scores(local_aggregation(tokens, r)).cpu() for r in NEIGHBOURHOODS)
        patches = patches / (len(self.needs) * len(NEIGHBOURHOODS))
        return Scores(rescore(patches.amax(1), encoded.image), patches)
