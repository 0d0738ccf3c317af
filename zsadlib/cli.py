"""The command line: ``zsad study|score|evaluate|bench``, ``zsad data``, ``zsad prompts``, ``zsad cache``.

Exit codes: 0 all went well, 1 some input failed (its row says why), 2 the call or a folder's layout was wrong (nothing was
written).
"""

import functools
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Zero-shot visual anomaly detection with language.")
prompts_app = typer.Typer(no_args_is_help=True, help="Prompt banks: what LLMs answered.")
app.add_typer(prompts_app, name="prompts")
data_app = typer.Typer(no_args_is_help=True, help="Official data sets: get them, check them.")
app.add_typer(data_app, name="data")
cache_app = typer.Typer(no_args_is_help=True, help="What is kept between runs.")
app.add_typer(cache_app, name="cache")

ProfileOption = Annotated[str, typer.Option(help="Profile: model and choices.")]
CategoryOption = Annotated[str, typer.Option(help='What the pictures show, as in a prompt: "magnetic tile".')]


def one_sentence(command):
    """Turn a wrong call (ValueError, missing file) into one clear sentence on stderr and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except (ValueError, FileNotFoundError) as error:
            typer.echo(f"zsad: {error}", err=True)
            raise typer.Exit(2) from None

    return wrapped


def image_files(paths, maps=None):
    """Files as given, folders by their image files, recursively and sorted, without a ``maps`` folder of ours in them."""
    from zsadlib.datasets import IMAGE_SUFFIXES

    files = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            inside = maps is not None and path.resolve() in maps.resolve().parents
            files += [p for p in found if not (inside and maps.resolve() in p.resolve().parents)]
        elif path.exists():
            files.append(path)
        else:
            raise ValueError(f"{path} does not exist; give image files or folders with images")
    if not files:
        raise ValueError(
            f"no image in {', '.join(map(str, paths))}; known types are {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return files


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

    from zsadlib import benchmark
    from zsadlib import study as chain
    from zsadlib.datasets import load_split
    from zsadlib.files import CACHE
    from zsadlib.profiles import load_profile
    from zsadlib.sources import SOURCES

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
        typer.echo(
            f"zsad: a cell failed: {error.ename}: {error.evalue}; the notebook is in the .failed folder", err=True
        )
        raise typer.Exit(1) from None
    typer.echo(f"dry run with random weights in {folder}" if dry_run else f"results in {folder}")
    if dry_run:
        settings = load_profile(profile)
        images = {s.title: [good + bad for _, good, bad in s.counts.values()] for s in SOURCES.values()}
        backbone, few = benchmark.profile_backbone(settings), load_split(settings.test)
        full = settings.model_copy(update={"shots": asked.shots, "draws": asked.draws})
        cost = benchmark.estimate(full, backbone, few, images)
        typer.echo(f"all methods on this machine, extrapolated from {sum(len(c.test) for c in few)} images:")
        typer.echo(cost.round(1).to_string(index=False))


@app.command()
@one_sentence
def score(
    paths: Annotated[list[Path], typer.Argument(help="Image files, or folders with images.")],
    category: CategoryOption,
    out: Annotated[Path, typer.Option(help="CSV to write: path, image_score, verdict, error.")],
    method: Annotated[str, typer.Option(help="clip-ac, winclip or alfa.")] = "alfa",
    bank: Annotated[
        str | None, typer.Option(help="Prompt bank (default: the profile's, or static if it has none).")
    ] = None,
    profile: ProfileOption = "mini",
    maps: Annotated[Path | None, typer.Option(help="Folder for one heat map (PNG) per image.")] = None,
    explain: Annotated[
        Path | None, typer.Option(help="JSON lines to write: the prompts that decided, and where (alfa only).")
    ] = None,
):
    """Score your own images: one row each; a file that cannot be read gets its error in its row, and exit code 1."""
    import json

    from tqdm.auto import tqdm

    from zsadlib import benchmark, plots, verdict
    from zsadlib.datasets import load_image
    from zsadlib.detectors import METHODS
    from zsadlib.files import replacing

    files = image_files(paths, maps)
    check_outputs(out, explain)
    if explain is not None and method != "alfa":
        raise ValueError(f"--explain needs the prompts of an image, which {method} does not choose; use --method alfa")
    if method in METHODS and METHODS[method].sees != "nothing":
        raise ValueError(f"zsad score judges each image alone and {method} needs a whole test set; use winclip or alfa")
    settings, bank_note = with_bank(profile, category, bank)
    backbone = benchmark.profile_backbone(settings)
    detector = benchmark.build_detector(method, settings, backbone).prepare(category)
    if bank_note and method == "alfa":
        typer.echo(f"zsad: {bank_note}", err=True)
    names = map_names(files)
    rows = []
    try:
        for path in tqdm(files, "scoring", unit="image"):
            row = {"path": str(path), "image_score": None, "verdict": "", "error": ""}
            rows.append(row)
            try:
                image = load_image(path)
            except ValueError as error:
                row["error"] = str(error)
                continue
            image_score, anomaly_map = detector.predict(backbone.preprocess([image]))
            row["image_score"] = round(float(image_score[0]), 6)
            if maps is not None:
                plots.save_overlay(image, anomaly_map[0].numpy(), maps / names[path])
    finally:  # a run that is stopped keeps the rows it has
        scored = [row["image_score"] for row in rows if row["image_score"] is not None]
        threshold = verdict.THRESHOLDS[settings.threshold](scored) if scored else 0.5
        for row in rows:
            if row["image_score"] is not None:
                row["verdict"] = "abnormal" if row["image_score"] >= threshold else "normal"
        write_rows(rows, out)
    if explain is not None:
        with replacing(explain) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for path, row in zip(files, tqdm(rows, "explaining", unit="image"), strict=True):
                reasons = []
                if not row["error"]:  # a second look: the verdict may depend on the whole batch
                    try:
                        image = load_image(path)
                        encoded = backbone.encode(backbone.preprocess([image]))
                        (found,) = detector.explain(encoded, threshold=threshold)
                        reasons = [in_pixels(reason, image.size) for reason in found]
                    except ValueError as error:  # it went away meanwhile; its score stands
                        row["error"] = str(error)
                file.write(json.dumps(row | {"threshold": round(threshold, 6), "reasons": reasons}) + "\n")
        write_rows(rows, out)  # an image may have gone away since
    failed = sum(bool(r["error"]) for r in rows)
    typer.echo(f"{len(rows) - failed} images scored (abnormal from {threshold:.3f}), {failed} failed; see {out}")
    if failed:
        raise typer.Exit(1)


def write_rows(rows, out):
    """The CSV of ``zsad score``."""
    import pandas as pd

    from zsadlib.files import replacing

    with replacing(out) as temporary:
        pd.DataFrame(rows, columns=["path", "image_score", "verdict", "error"]).to_csv(temporary, index=False)


def check_outputs(*files):
    """Refuse, before any work, an output file that is a folder or that two outputs share."""
    files = [file for file in files if file is not None]
    for file in files:
        if file.is_dir():
            raise ValueError(f"{file} is a folder; give the name of a file to write")
    if len({file.resolve() for file in files}) < len(files):
        raise ValueError(f"{files[0]} is named twice; give each output a file of its own")


def in_pixels(reason, size):
    """A reason for JSON: its map shrunk to the place of its maximum, in pixels of the image (width, height)."""
    where = reason.pop("map")
    row, column = divmod(int(where.argmax()), where.shape[1])
    x, y = (int((at + 0.5) * side / n) for at, side, n in zip((column, row), size, where.shape[::-1], strict=True))
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in reason.items()}
    return rounded | {"where": {"x": x, "y": y, "score": round(float(where.max()), 4)}}


def map_names(files):
    """Heat-map file name of every image: its own name, numbered where two images share it."""
    names, taken = {}, Counter()
    for path in files:
        name = f"{path.stem}_{path.suffix[1:].lower()}"
        taken[name.lower()] += 1
        again = taken[name.lower()]
        names[path] = f"{name}_map.png" if again == 1 else f"{name}_{again}_map.png"
    return names


def with_bank(profile, category, bank):
    """The profile with a bank that exists for ``category``; and a note where it is not the profile's own."""
    from zsadlib.profiles import load_profile
    from zsadlib.prompts import load_bank

    settings = load_profile(profile)
    if settings.dry_run:
        raise ValueError(f"profile {profile} is for dry runs: its random weights can score nothing; use another one")
    if bank is not None:
        load_bank(bank, category)
        return settings.model_copy(update={"bank": bank}), ""
    try:
        load_bank(settings.bank, category)
        return settings, ""
    except ValueError as error:
        return settings.model_copy(update={"bank": "static"}), f"using the static prompts: {error}"


@app.command()
@one_sentence
def evaluate(
    root: Annotated[
        Path, typer.Option(help="One category folder in the MVTec AD layout (test/good, test/<kind>, ...).")
    ],
    category: CategoryOption,
    out: Annotated[Path, typer.Option(help="CSV to write, one metric a row.")],
    methods: Annotated[
        str, typer.Option(help="Comma-separated: clip-ac, winclip, alfa, musc; with shots winclip+, alfa, patchcore.")
    ] = "clip-ac,winclip,alfa",
    bank: Annotated[
        str | None, typer.Option(help="Prompt bank (default: the profile's, or static if it has none).")
    ] = None,
    profile: ProfileOption = "mini",
    shots: Annotated[int, typer.Option(min=0, help="Normal images of train/good to use.")] = 0,
):
    """Image and pixel metrics of one labelled category folder."""
    from zsadlib import benchmark
    from zsadlib.datasets import read_category
    from zsadlib.files import replacing

    check_outputs(out)
    data = read_category(root, category)
    settings, bank_note = with_bank(profile, category, bank)
    names = ["winclip+" if shots and m.strip() == "winclip" else m.strip() for m in methods.split(",")]
    if bank_note and "alfa" in names:
        typer.echo(f"zsad: {bank_note}", err=True)
    if shots and "clip-ac" in names and len(names) > 1:
        names.remove("clip-ac")
        typer.echo("zsad: clip-ac is zero-shot only and is left out", err=True)
    backbone = benchmark.profile_backbone(settings)
    units = [benchmark.Unit(name, shots, settings.seed) for name in names]
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

    from zsadlib import benchmark, parallel
    from zsadlib.datasets import load_split
    from zsadlib.files import replacing
    from zsadlib.profiles import load_profile

    check_outputs(out)
    settings = load_profile(profile)
    if settings.dry_run:
        raise ValueError(f"profile {profile} is for dry runs; zsad study --dry-run says what a benchmark would cost")
    words, images = benchmark.zero_shot(settings), benchmark.few_shot(settings)
    asked = (settings.development, words), (settings.test, words + images)  # as in notebooks 5 and 6
    table = pd.concat([parallel.evaluate(settings, load_split(s, limit), units, backend, jobs) for s, units in asked])
    with replacing(out) as temporary:
        table.to_csv(temporary, index=False)
    typer.echo(f"{len(table)} values in {out}")


@data_app.command("fetch")
@one_sentence
def data_fetch(
    name: Annotated[str, typer.Argument(help="mvtec-ad or visa.")],
    path: Annotated[Path | None, typer.Option(help="Your own archive, or the folder where you unpacked it.")] = None,
    accept_licence: Annotated[bool, typer.Option(help="You have read the licence and accept it.")] = False,
):
    """Put an official data set under data/: from your own copy, or downloaded (resumes after a stop)."""
    from zsadlib import sources
    from zsadlib.files import DATA

    folder = sources.fetch(sources.get_source(name), path, accept_licence, DATA)
    typer.echo(f"{name} is in {folder}; check it with: zsad data check {name}")


@data_app.command("check")
@one_sentence
def data_check(name: Annotated[str, typer.Argument(help="mvtec-ad or visa.")]):
    """Compare a data set with its published counts and open every image; exit code 1 where something is wrong."""
    from zsadlib import sources
    from zsadlib.files import DATA

    table, problems = sources.check(sources.get_source(name), DATA / name)
    typer.echo(table.to_string(index=False))
    for problem in problems:
        typer.echo(f"zsad: {problem}", err=True)
    typer.echo(f"{len(problems)} problems" if problems else "complete and readable")
    if problems:
        raise typer.Exit(1)


@cache_app.command("info")
def cache_info():
    """How much is kept: embeddings and results of units."""
    from zsadlib import benchmark, store

    taken, number = store.size()
    units = len(list(benchmark.UNITS.rglob("[!.]*.json")))
    typer.echo(f"{number} embeddings, {taken / 1e9:.2f} of {store.GIGABYTES:g} GB, in {store.FOLDER}")
    typer.echo(f"{units} results of units in {benchmark.UNITS}")


@cache_app.command("clear")
def cache_clear():
    """Remove everything that is kept; the next run computes it again."""
    import shutil

    from zsadlib import benchmark, store

    for folder in (store.FOLDER, benchmark.UNITS, benchmark.ALIGNERS):
        shutil.rmtree(folder, ignore_errors=True)
    typer.echo("nothing is kept any more")


@prompts_app.command("record")
@one_sentence
def prompts_record(
    llm: Annotated[str, typer.Option(help="gemma-3-270m (local), or a model name of your server.")],
    category: Annotated[list[str] | None, typer.Option(help="Category; repeatable. Default: all in the study.")] = None,
    n: Annotated[int, typer.Option(min=1, max=64, help="Answers a side.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Folder of banks (default data/prompts).")] = None,
    api: Annotated[str, typer.Option(help="chat, or completion for base models (servers only).")] = "chat",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    model: Annotated[str | None, typer.Option(help="The server's name of the model, where --llm cannot be it.")] = None,
):
    """Ask an LLM for prompts and record its answers (a server: set OPENAI_BASE_URL and OPENAI_API_KEY)."""
    import contextlib

    import openai
    from tqdm.auto import tqdm

    from zsadlib import llm as language
    from zsadlib.prompts import PROMPTS, bank_path

    folder = out or PROMPTS
    categories = category or study_categories()
    for name in categories:
        bank_path(llm, name, folder)
    local = llm in language.LOCAL_LLMS
    try:
        server = (
            language.local_server(llm) if local else contextlib.nullcontext(openai.OpenAI(timeout=language.TIMEOUT))
        )
    except openai.OpenAIError:
        raise ValueError(
            "no key for an LLM server; set OPENAI_API_KEY and, for other servers, OPENAI_BASE_URL, or use --llm gemma-3-270m"
        ) from None
    options = {} if local else {"api": api, "model": model}
    fallbacks = 0
    with server as client:
        for name in tqdm(categories, f"asking {llm}", unit="category"):
            bank = language.record(llm, name, folder, client, n=n, seed=seed, **options)
            fallbacks += bool(bank.fallback)
            if bank.fallback:
                sides = " and ".join(bank.fallback)
                typer.echo(f"zsad: {name}: no usable {sides} answer ({bank.dropped})", err=True)
    typer.echo(
        f"asked for {len(categories)} categories, {fallbacks} with a side without answers; banks in {folder / llm}"
    )
    if fallbacks:
        raise typer.Exit(1)


@prompts_app.command("list")
def prompts_list():
    """Which banks there are, and how many categories each has."""
    from zsadlib.prompts import PROMPTS, banks

    for name in banks():
        count = "any category" if name == "static" else f"{len(list((PROMPTS / name).glob('*.json'))) - 1} categories"
        typer.echo(f"{name}: {count}")


def study_categories():
    """Every category of the mini study that is scored: development, test, textile and magnetic tile."""
    from zsadlib import miniad

    return [*miniad.split_names("development"), *miniad.split_names("test"), "textile", "magnetic tile"]


if __name__ == "__main__":
    sys.exit(app())
