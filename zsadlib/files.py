"""Where things are, and how files are written: to a temporary name first, so that nothing is ever half there."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ZSAD_DATA", ROOT / "data"))
CACHE = DATA / "cache"
DRY_RUN = "DRY-RUN"  # a folder with a file of this name holds no results: its figures and tables say so


def is_dry_run(folder):
    """Whether a folder is marked as a dry run's."""
    return (Path(folder) / DRY_RUN).is_file()


def marked(table, folder):
    """A DataFrame as it goes into a folder: a dry run's gets a column that says so."""
    return table.assign(dry_run="random weights") if is_dry_run(folder) else table


@contextlib.contextmanager
def replacing(path):
    """A temporary path beside ``path`` that takes its place when the block ends well, and vanishes when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)  # not earlier: some writers replace the file themselves
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def sha256(path):
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
