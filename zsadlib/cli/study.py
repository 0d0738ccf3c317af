"""``zsad study``, ``zsad evaluate`` and ``zsad bench``: the chain of notebooks, one labelled folder, both benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from zsadlib.cli.app import (
    FAILED_INPUT,
    CategoryOption,
    ProfileOption,
    app,
    check_outputs,
    method_names,
    one_sentence,
    say,
    tell,
)


@app.command()
@one_sentence
def study(
    profile: ProfileOption = "mini",
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE for the notebooks.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Prefix of a notebook to run, such as 03; repeatable.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder to write (default results/<profile>).")] = None,
    publish: Annotated[bool, typer.Option(help="Also replace notebooks/*.ipynb by the executed ones.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Random weights, few images, a marked folder; then what a full run would cost."),
    ] = False,
):
    """Execute the chain of notebooks into results/<profile>."""
    import papermill

    from zsadlib.datasets.catalogue import load_split
    from zsadlib.datasets.official import SOURCES
    from zsadlib.files import CACHE
    from zsadlib.models.loading import profile_backbone
    from zsadlib.profiles import load_profile
    from zsadlib.study import chain
    from zsadlib.study.estimate import estimate

    pairs = [p.partition("=") for p in parameter or []]
    if bad := [name for name, equals, _ in pairs if not equals]:
        raise ValueError(f"parameter '{bad[0]}' has no value; write --parameter {bad[0]}=VALUE")
    values = {name: value for name, _, value in pairs}
    if dry_run:
        results = results or CACHE / "dry-run" / Path(profile).stem
        if any("limit" in chain.notebook_parameters(script) for script in chain.notebook_scripts(only or ())):
            values = {"limit": "4"} | values
        asked = load_profile(profile)
        profile = str(chain.dry_run_profile(asked, CACHE / "dry-run"))
    try:
        folder = chain.run(profile, values, results, only or (), publish)
    except papermill.PapermillExecutionError as error:
        say(f"a cell failed: {error.ename}: {error.evalue}; the notebook is in the .failed folder")
        raise typer.Exit(FAILED_INPUT) from None
    tell(f"dry run with random weights in {folder}" if dry_run else f"results in {folder}")
    if dry_run:
        settings = load_profile(profile)
        images = {s.title: [good + bad for _, good, bad in s.counts.values()] for s in SOURCES.values()}
        backbone, few = profile_backbone(settings), load_split(settings.reported)
        full = settings.model_copy(update={"shots": asked.shots, "draws": asked.draws})
        cost = estimate(full, backbone, few, images)
        typer.echo(f"all methods on this machine, extrapolated from {sum(len(c.test) for c in few)} images:")
        typer.echo(cost.round(1).to_string(index=False))


@app.command()
@one_sentence
def evaluate(
    root: Annotated[
        Path, typer.Option(help="One category folder in the MVTec AD layout (test/good, test/<kind>, ...).")
    ],
    category: CategoryOption,
    out: Annotated[Path, typer.Option(help="CSV to write, one metric a row.")],
    methods: Annotated[
        str, typer.Option(help=f"Comma-separated, of {method_names()}; winclip+ and patchcore need --shots.")
    ] = "clip-ac,winclip,alfa",
    bank: Annotated[
        str | None, typer.Option(help="Prompt bank (default: the profile's, or static if it has none).")
    ] = None,
    profile: ProfileOption = "mini",
    shots: Annotated[int, typer.Option(min=0, help="Normal images of train/good to use.")] = 0,
):
    """Image and pixel metrics of one labelled category folder."""
    from zsadlib.datasets.folders import read_category
    from zsadlib.detectors import method as method_named
    from zsadlib.files import replacing
    from zsadlib.models.loading import profile_backbone
    from zsadlib.profiles import load_profile
    from zsadlib.prompts.banks import load_bank, usable_bank
    from zsadlib.study import benchmark
    from zsadlib.study.units import Unit

    check_outputs(out)
    data = read_category(root, category)
    settings = load_profile(profile)
    if settings.dry_run:
        raise ValueError(f"profile {profile} is for dry runs: its random weights can score nothing; use another one")
    names = ["winclip+" if shots and m.strip() == "winclip" else m.strip() for m in methods.split(",")]
    for name in names:
        method_named(name)
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is named twice in --methods {methods}; name each method once")
    if bank is not None:
        load_bank(bank, category)
    name, note = (bank, "") if bank is not None else usable_bank(settings.bank, category)
    settings = settings.model_copy(update={"bank": name})
    if note and "alfa" in names:
        say(note)
    if shots and "clip-ac" in names and len(names) > 1:
        names.remove("clip-ac")
        say("clip-ac is zero-shot only and is left out")
    backbone = profile_backbone(settings)
    units = [Unit(name, shots, settings.seed) for name in names]
    table = benchmark.evaluate(settings, backbone, [data], units)
    with replacing(out) as temporary:
        table.to_csv(temporary, index=False)
    typer.echo(table.pivot(index="metric", columns="method", values="value").round(4).to_string())


@app.command()
@one_sentence
def bench(
    out: Annotated[Path, typer.Option(help="CSV to write: the tidy table of both benchmarks.")],
    profile: ProfileOption = "mini",
    backend: Annotated[str, typer.Option(help="loky (this machine) or ray (the cluster at RAY_ADDRESS).")] = "loky",
    jobs: Annotated[int, typer.Option(help="Workers; each has as many threads as OMP_NUM_THREADS says.")] = 2,
    limit: Annotated[int, typer.Option(min=0, help="Test images of each category; 0: all.")] = 0,
):
    """Both benchmarks (zero-shot and few-shot) by many workers; what is done is kept, and a lost worker's part done again."""
    import pandas as pd

    from zsadlib.datasets.catalogue import load_split
    from zsadlib.files import replacing
    from zsadlib.profiles import load_profile
    from zsadlib.study import benchmark, parallel

    check_outputs(out)
    settings = load_profile(profile)
    if settings.dry_run:
        raise ValueError(f"profile {profile} is for dry runs; zsad study --dry-run says what a benchmark would cost")
    words, images = benchmark.zero_shot(settings), benchmark.few_shot(settings)
    # as in notebooks 5 and 6
    asked = (settings.development, benchmark.on_development(settings)), (settings.reported, words + images)
    table = pd.concat([parallel.evaluate(settings, load_split(s, limit), units, backend, jobs) for s, units in asked])
    with replacing(out) as temporary:
        table.to_csv(temporary, index=False)
    tell(f"{len(table)} values in {out}")
