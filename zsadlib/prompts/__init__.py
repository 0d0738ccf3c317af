"""Words in: recorded prompts (``banks``), the LLM that writes them (``llm``), what may be wrong with them (``ambiguity``), and
which of them count for an image (``scoring``)."""

from zsadlib.prompts.banks import (
    SHORT_TEMPLATES,
    STATIC_ABNORMAL,
    STATIC_NORMAL,
    TEMPLATES,
    bank_names,
    clean,
    is_recorded,
    load_bank,
    own_sentences,
    plain,
)

__all__ = [
    "SHORT_TEMPLATES", "STATIC_ABNORMAL", "STATIC_NORMAL", "TEMPLATES", "bank_names", "clean", "is_recorded", "load_bank",
    "own_sentences", "plain",
]  # fmt: skip
