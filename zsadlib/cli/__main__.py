"""``python -m zsadlib.cli`` is ``zsad``."""

from zsadlib.cli import app

app(prog_name="zsad")
