"""The command line: ``zsad score|evaluate|study|bench|examples|methods|profiles|data|prompts|cache``."""

from zsadlib.cli import banks, data, kept, lists, score, study
from zsadlib.cli.app import app

__all__ = ["app", "banks", "data", "kept", "lists", "score", "study"]
