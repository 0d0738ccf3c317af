"""From the image to its patches: carrying image-text alignment into the local space.

CLIP aligns only the class token with language. Three ways to score a place: ``raw`` patch tokens (no aligner), WinCLIP's
``windows`` (exact, one extra pass per window), and ``Aligner``, a ridge regression from patch space to the global space
that is fitted without labels and costs one matrix product. The last is this project's *reconstruction* of the training-
free fine-grained aligner of ALFA: the paper says that the alignment is projected from the global to the local space,
not by which formula.
"""

import json

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from zsadlib.files import replacing
from zsadlib.models import embedded, store
from zsadlib.models.encoded import window_indices, windows
from zsadlib.provenance import sha256

RIDGE = 0.1
COMMITTED = embedded.WEIGHTS.with_name(f"{embedded.NAME}-aligner.safetensors")


class Aligner:
    """A linear map from patch space to the shared space, fitted on windows of unlabelled images.

    Attributes:
        matrix: (width + 1, dim); the last row is the bias. backbone: the name it was fitted for.
        about: what else its file says (on what it was fitted).
    """

    def __init__(self, matrix, backbone, about=None):
        self.matrix, self.backbone, self.about = matrix, backbone, about or {}

    @classmethod
    def fit(cls, backbone, parts, k=2, ridge=RIDGE):
        """Closed-form ridge solution over pairs (mean of the patch tokens in a window, image embedding of the window).

        Args:
            backbone: a ``Backbone``. parts: iterable of its ``Encoded``, with windows of side k. No labels.
            k: window side in patches. ridge: penalty, relative to the mean squared norm of a patch feature.

        Raises:
            ValueError: there was no image.
        """
        width = backbone.width + 1
        gram = torch.zeros(width, width, dtype=torch.float64)
        cross = torch.zeros(width, backbone.dim, dtype=torch.float64)
        index = window_indices(backbone.grid, k)
        pairs = 0
        for part in parts:
            x = part.patches[:, index].mean(2).flatten(0, 1).double()
            x = torch.cat([x, x.new_ones(len(x), 1)], 1)
            y = part.extra["windows", k].flatten(0, 1).double()
            gram += x.T @ x
            cross += x.T @ y
            pairs += len(x)
        if not pairs:
            raise ValueError("the aligner needs at least one image to be fitted on")
        penalty = torch.full((width,), ridge * float(gram.diagonal()[:-1].mean()), dtype=torch.float64)
        penalty[-1] = 0.0
        return cls(torch.linalg.solve(gram + penalty.diag(), cross).float(), backbone.name)

    def __call__(self, patches):
        """Patch tokens (..., width) -> aligned embeddings (..., dim), L2-normalised."""
        return F.normalize(patches @ self.matrix[:-1] + self.matrix[-1], dim=-1)

    def save(self, path, **about):
        with replacing(path) as temporary:
            save_file(
                {"matrix": self.matrix.contiguous()},
                temporary,
                {"about": json.dumps({"backbone": self.backbone} | about)},
            )

    @classmethod
    def load(cls, path):
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
            return cls(file.get_tensor("matrix"), about.pop("backbone"), about)

    @classmethod
    def committed(cls, backbone, k):
        """The aligner that this package ships for the embedded model's own weights and windows of side ``k``, or None."""
        if (backbone.name, backbone.pretrained) != (embedded.NAME, "embedded"):
            return None
        aligner = cls.load(COMMITTED)
        fits = aligner.about["window"] == k and aligner.about["weights_sha256"] == sha256(embedded.WEIGHTS)
        return aligner if fits else None


def fit_aligner(backbone, paths, k, **options):
    """``Aligner.fit`` on image files."""
    return Aligner.fit(backbone, store.encode_batches(backbone, paths, windows(k)), k, **options)


def harmonic_mean(window_scores, grid, k):
    """Scores of k x k windows (batch, windows) -> patches (batch, grid * grid): harmonic mean over covering windows."""
    index = window_indices(grid, k)
    inverse = 1 / window_scores.clamp_min(1e-6)
    flat = index.flatten().expand(len(window_scores), -1)
    total = torch.zeros(len(window_scores), grid * grid)
    total.scatter_add_(1, flat, inverse.repeat_interleave(index.shape[1], 1))
    count = torch.bincount(index.flatten(), minlength=grid * grid)
    return count / total


def to_map(patch_scores, size):
    """Patch scores (batch, grid * grid) -> anomaly maps (batch, size, size), bilinear."""
    grid = int(patch_scores.shape[1] ** 0.5)
    maps = patch_scores.unflatten(1, (grid, grid))[:, None]
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)[:, 0]


class Upsampled:
    """``to_map`` of many images, made a slice at a time: (n, size, size). The patch scores are all that is kept."""

    def __init__(self, patch_scores, size):
        self.patch_scores, self.size = patch_scores, size
        self.shape = len(patch_scores), size, size

    def __getitem__(self, rows):
        return to_map(self.patch_scores[rows], self.size).numpy()
