"""``zsad prompts``: banks recorded and listed."""

from pathlib import Path
from typing import Annotated

import typer

from zsadlib.cli.app import FAILED_INPUT, one_sentence, prompts_app, say, tell


@prompts_app.command("record")
@one_sentence
def prompts_record(
    llm: Annotated[str, typer.Option(help="gemma-3-270m (local), or a model name of your server.")],
    category: Annotated[list[str] | None, typer.Option(help="Category; repeatable. Default: all in the study.")] = None,
    n: Annotated[int, typer.Option(min=1, max=64, help="Answers a side.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Folder of banks (default: your own, in the data folder).")] = None,
    api: Annotated[str, typer.Option(help="chat, or completion for base models (servers only).")] = "chat",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    model: Annotated[str | None, typer.Option(help="The server's name of the model, where --llm cannot be it.")] = None,
):
    """Ask an LLM for prompts and record its answers (a server: set OPENAI_BASE_URL and OPENAI_API_KEY)."""
    from tqdm.auto import tqdm

    from zsadlib.prompts import llm as language
    from zsadlib.prompts.banks import OWN, bank_path

    folder = out or OWN
    categories = category or study_categories()
    for name in categories:
        bank_path(llm, name, folder)
    local = llm in language.LOCAL_LLMS
    server = language.local_server(llm) if local else language.connect()
    options = {} if local else {"api": api, "model": model}
    fallbacks = 0
    with server as client:
        for name in tqdm(categories, f"asking {llm}", unit="category"):
            bank = language.record(llm, name, folder, client, n=n, seed=seed, **options)
            fallbacks += bool(bank.fallback)
            if bank.fallback:
                sides = " and ".join(bank.fallback)
                say(f"{name}: no usable {sides} answer ({bank.dropped})")
    tell(f"asked for {len(categories)} categories, {fallbacks} with a side without answers; banks in {folder / llm}")
    if fallbacks:
        raise typer.Exit(FAILED_INPUT)


@prompts_app.command("list")
@one_sentence
def prompts_list():
    """Which banks there are, and how many categories each has."""
    from zsadlib.prompts.banks import bank_files, bank_names

    for name in bank_names():
        count = "any category" if name == "static" else f"{len(bank_files(name))} categories"
        typer.echo(f"{name}: {count}")


def study_categories():
    """Every category of the mini study that is scored: development, seen test, textile and magnetic tile."""
    from zsadlib.datasets import miniad

    return [*miniad.split_names("development"), *miniad.split_names("seen_test"), "textile", "magnetic tile"]
