"""``zsad data``: official sets, fetched and checked."""

from pathlib import Path
from typing import Annotated

import typer

from zsadlib.cli.app import FAILED_INPUT, data_app, one_sentence, say, tell


@data_app.command("fetch")
@one_sentence
def data_fetch(
    name: Annotated[str, typer.Argument(help="mvtec-ad or visa.")],
    path: Annotated[Path | None, typer.Option(help="Your own archive, or the folder where you unpacked it.")] = None,
    accept_licence: Annotated[bool, typer.Option(help="You have read the licence and accept it.")] = False,
):
    """Put an official data set under data/: from your own copy, or downloaded (resumes after a stop)."""
    from zsadlib.datasets import official
    from zsadlib.files import DATA

    folder = official.fetch(official.get_source(name), path, accept_licence, DATA)
    tell(f"{name} is in {folder}; check it with: zsad data check {name}")


@data_app.command("check")
@one_sentence
def data_check(name: Annotated[str, typer.Argument(help="mvtec-ad or visa.")]):
    """Compare a data set with its published counts and open every image; exit code 1 where something is wrong."""
    from zsadlib.datasets import official
    from zsadlib.files import DATA

    table, problems = official.check(official.get_source(name), DATA / name)
    typer.echo(table.to_string(index=False))
    for problem in problems:
        say(problem)
    typer.echo(f"{len(problems)} problems" if problems else "complete and readable")
    if problems:
        raise typer.Exit(FAILED_INPUT)
