"""What all commands share: the application, its exit codes, and one sentence for whatever goes wrong.

Exit codes: 0 all went well, 1 some input failed (its row says why), 2 the call or a folder's layout was wrong, 3 the system
refused (disk full, no permission), 4 a fault of ours.
"""

import errno
import functools
import os
import re
import tempfile
import traceback
from pathlib import Path
from typing import Annotated

import typer

from zsadlib import __version__
from zsadlib.inspection.text import inert

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
FAILED_INPUT, WRONG_CALL, REFUSED, FAULT, STOPPED = 1, 2, 3, 4, 130

app = typer.Typer(no_args_is_help=True, help="Zero-shot visual anomaly detection with language.")
prompts_app = typer.Typer(no_args_is_help=True, help="Prompt banks: what LLMs answered.")
app.add_typer(prompts_app, name="prompts")
data_app = typer.Typer(no_args_is_help=True, help="Official data sets: get them, check them.")
app.add_typer(data_app, name="data")
cache_app = typer.Typer(no_args_is_help=True, help="What is kept between runs.")
app.add_typer(cache_app, name="cache")

ProfileOption = Annotated[str, typer.Option(help="Profile: model and choices; `zsad profiles` lists them.")]
CategoryOption = Annotated[str, typer.Option(help='What the pictures show, as in a prompt: "magnetic tile".')]


@app.callback(invoke_without_command=True)
def common(
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.", is_eager=True)] = False,
):
    """Zero-shot visual anomaly detection with language."""
    if version:
        typer.echo(f"zsad {__version__}")
        raise typer.Exit


def tell(text, err=False):
    """What a command found, on stdout; names in it may be anybody's."""
    typer.echo(inert(text), err=err)


def say(text):
    """A line on stderr, so that a table on stdout stays a table."""
    tell(f"zsad: {text}", err=True)


def one_sentence(command):
    """Turn whatever goes wrong into one clear sentence on stderr and an exit code. ZSAD_DEBUG=1 shows where it happened."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if os.environ.get("ZSAD_DEBUG"):
                traceback.print_exc()
            text, code = _sentence(error)
            say(text)
            raise typer.Exit(code) from None

    return wrapped


def _sentence(error):
    """What to say of an error, and the exit code."""
    ours = (
        isinstance(error, FileNotFoundError) and error.errno is None
    )  # a layout that we miss, not a refusal of the system
    if ours or (isinstance(error, ValueError) and not isinstance(error, UnicodeError)):
        return str(error), WRONG_CALL
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        return f"the system refused: {where}{what}; make room or name another place", REFUSED
    if _no_memory(error):
        return "the system refused: there is not enough memory; use a smaller --batch-size", REFUSED
    return (
        f"this is a fault of ours ({type(error).__name__}: {error}); please report it with what ZSAD_DEBUG=1 shows",
        FAULT,
    )


def _no_memory(error):
    """Whether there was too little memory, of the GPU too; of the processor's torch has no exception of its own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and re.search("out of memory|DefaultCPUAllocator", str(error)) is not None


def check_outputs(*files):
    """Refuse, before any work, an output file that is none, that two outputs share, or that cannot be written.

    Raises:
        ValueError: it is a folder, a pipe or a device, or named twice. OSError: the system does not let it be written.
    """
    files = [Path(file) for file in files if file is not None and str(file) != "-"]
    for file in files:
        if file.is_dir():
            raise ValueError(f"{file} is a folder; give the name of a file to write")
        if file.exists() and not file.is_file():
            raise ValueError(f"{file} is a pipe or a device; give the name of a file to write")
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=".zsad-", dir=file.parent):
            pass
    if len({file.resolve() for file in files}) < len(files):
        raise ValueError(f"{files[0]} is named twice; give each output a file of its own")


def check_folder(folder):
    """The same for a folder to write into."""
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the name of a folder to write into")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=".zsad-", dir=folder):
        pass


def method_names():
    """For help texts, without loading a model."""
    from zsadlib.detectors import METHODS

    return ", ".join(METHODS)
