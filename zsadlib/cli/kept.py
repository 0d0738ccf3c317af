"""``zsad cache``: what is kept, and how it is cleared."""

import typer

from zsadlib.cli.app import cache_app, one_sentence


@cache_app.command("info")
@one_sentence
def cache_info():
    """How much is kept: embeddings and results of units."""
    from zsadlib.models import store
    from zsadlib.study import methods, units

    taken, number = store.size()
    results = len(list(units.UNITS.rglob("[!.]*.json")))
    typer.echo(f"{number} embeddings, {taken / 1e9:.2f} of {store.GIGABYTES:g} GB, in {store.FOLDER}")
    fitted = len(list(methods.FITTED.glob("[!.]*.safetensors")))
    typer.echo(f"{fitted} fitted methods in {methods.FITTED}")
    typer.echo(f"{results} results of units in {units.UNITS}")


@cache_app.command("clear")
@one_sentence
def cache_clear():
    """Remove everything that is kept; the next run computes it again."""
    import shutil

    from zsadlib.models import store
    from zsadlib.study import methods, units

    for folder in (store.FOLDER, units.UNITS, methods.FITTED):
        shutil.rmtree(folder, ignore_errors=True)
    typer.echo("nothing is kept any more")
