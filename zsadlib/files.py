"""Where things are, and how files are written: to a temporary name first, so that nothing is ever half there."""

import contextlib
import os
import re
import secrets
import shutil
import stat
import time
from pathlib import Path

import platformdirs

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent  # of a clone; an installed package has nothing of ours beside it
CLONE = (ROOT / "notebooks").is_dir() and (ROOT / "pyproject.toml").is_file()
# Generated and fetched sets, caches and a user's own prompt banks. What the package ships never lies here.
DATA = Path(os.environ.get("ZSAD_DATA") or (ROOT / "data" if CLONE else platformdirs.user_data_path("zsad")))
CACHE = DATA / "cache"
DRY_RUN = "DRY-RUN"  # a folder with a file of this name holds no results: its figures and tables say so
DAY = 24 * 3600
TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?")  # ".name-" and what ``tempfile`` makes up


def is_dry_run(folder):
    """Whether a folder is marked as a dry run's."""
    return (Path(folder) / DRY_RUN).is_file()


def marked(table, folder):
    """A DataFrame as it goes into a folder: a dry run's gets a column that says so."""
    return table.assign(dry_run="random weights") if is_dry_run(folder) else table


@contextlib.contextmanager
def replacing(path):
    """A temporary path beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    Raises:
        ValueError: ``path`` is a folder, a pipe or a device, which nothing may take the place of.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder, a pipe or a device; give the name of a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    with open(temporary, "xb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)  # what the umask leaves of it
    try:
        yield temporary
        temporary.chmod(mode)  # some writers replace the file themselves
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def left_over(folder):
    """What killed processes left half made under ``folder``: (bytes, path) of files and folders that are a day old.

    They are what ``replacing`` and those who make whole folders write to before it is renamed.
    """
    found, folder = [], Path(folder)
    for path in folder.rglob(".*-*"):
        temporary = [bool(TEMPORARY.fullmatch(part)) for part in path.relative_to(folder).parts]
        if not temporary[-1] or any(temporary[:-1]) or path.is_symlink():
            continue
        with contextlib.suppress(FileNotFoundError):
            inside = [part.lstat() for part in (path, *path.rglob("*"))]
            if max(status.st_mtime for status in inside) < time.time() - DAY:
                found.append((sum(status.st_size for status in inside if stat.S_ISREG(status.st_mode)), path))
    return found


def clear_left_over(folder):
    """Remove what ``left_over`` finds under ``folder``."""
    for _, path in left_over(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
