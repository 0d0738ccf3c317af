"""``zsad cache``: what is kept, and how it is cleared."""

import os

import typer

from zsadlib.cli.app import REFUSED, cache_app, one_sentence, say, tell


@cache_app.command("info")
@one_sentence
def cache_info():
    """How much is kept: embeddings and results of units."""
    from zsadlib.models import store
    from zsadlib.study import methods, units

    taken, number = store.size()
    results = len(list(units.UNITS.rglob("[!.]*.json")))
    tell(f"{number} embeddings, {taken / 1e9:.2f} of {store.GIGABYTES:g} GB, in {store.FOLDER}")
    fitted = len(list(methods.FITTED.glob("[!.]*.safetensors")))
    tell(f"{fitted} fitted methods in {methods.FITTED}")
    tell(f"{results} results of units in {units.UNITS}")


@cache_app.command("clear")
@one_sentence
def cache_clear():
    """Remove everything that is kept; the next run computes it again."""
    import shutil

    from zsadlib.models import store
    from zsadlib.study import methods, units

    stays = False
    for folder in (store.FOLDER, units.UNITS, methods.FITTED):
        shutil.rmtree(folder, ignore_errors=True)  # whatever can be removed
        if os.path.lexists(folder):
            try:
                shutil.rmtree(folder)
            except OSError as error:
                stays, what = True, f"{error.filename}: {error.strerror}" if error.filename else error
                say(f"the system refused: not all of {folder} can be removed ({what})")
    if stays:
        raise typer.Exit(REFUSED)
    tell("nothing is kept any more")
