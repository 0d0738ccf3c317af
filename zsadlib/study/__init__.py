"""The study: units of work, the methods that run in them, the benchmark they make, and the chain of notebooks.

Notebooks find here what they share: ``from zsadlib import study``.
"""

from zsadlib.models.loading import profile_backbone
from zsadlib.models.store import batches
from zsadlib.study.benchmark import evaluate, few_shot, image_scores, on_development, zero_shot
from zsadlib.study.chain import results_folder
from zsadlib.study.methods import build_detector, predict_category, profile_aligner
from zsadlib.study.tables import COLUMNS, reported, save_scores, save_table, spread, summary
from zsadlib.study.units import Unit, encode_category, masks_of

__all__ = [
    "COLUMNS", "Unit", "batches", "build_detector", "encode_category", "evaluate", "few_shot", "image_scores", "masks_of",
    "on_development", "predict_category", "profile_aligner", "profile_backbone", "reported", "results_folder", "save_scores",
    "save_table", "spread", "summary", "zero_shot",
]  # fmt: skip
