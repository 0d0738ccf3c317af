"""The aligner that is shipped with the embedded model."""

from zsadlib.datasets.catalogue import load_miniad
from zsadlib.models import aligner, embedded
from zsadlib.models.loading import load_backbone
from zsadlib.profiles import load_profile
from zsadlib.provenance import sha256
from zsadlib.training.recipe import forget_models


def fit_aligner(out=aligner.COMMITTED):
    """Fit the aligner of the profile "mini" on MiniAD's development images, without their labels, and write it to ``out``."""
    window = load_profile("mini").aligner_window
    forget_models()
    backbone = load_backbone()
    paths = [sample.path for category in load_miniad("development") for sample in category.test]
    fitted = aligner.fit_aligner(backbone, paths, window)
    fitted.save(out, fitted_on="MiniAD development, unlabelled", window=window, weights_sha256=sha256(embedded.WEIGHTS))
