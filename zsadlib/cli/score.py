"""``zsad score``: a thin layer over ``zsadlib.Inspector``; what is found is kept as it comes."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from zsadlib.cli.app import (
    FAILED_INPUT,
    STOPPED,
    CategoryOption,
    ProfileOption,
    app,
    check_folder,
    check_outputs,
    method_names,
    one_sentence,
    say,
    tell,
)


@app.command()
@one_sentence
def score(
    paths: Annotated[list[Path], typer.Argument(help="Image files, or folders with images.")],
    category: CategoryOption,
    out: Annotated[Path, typer.Option(help="Table to write, one row per image; - for stdout.")],
    normal: Annotated[
        list[Path] | None, typer.Option(help="Folder (or file) of photographs without a defect; repeatable.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help=f"One of {method_names()} (default: alfa; with --normal the best on development)."),
    ] = None,
    bank: Annotated[
        str | None, typer.Option(help="Prompt bank for alfa (default: the profile's, or static if it has none).")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help='Your own sentences: JSON with the lists "normal" and "abnormal".')
    ] = None,
    profile: ProfileOption = "mini",
    views: Annotated[
        str | None,
        typer.Option(help='"auto": crops of large photographs too, 14 looks (default without --normal); "whole": one.'),
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option(help="Region of interest: left,top,right,bottom in pixels, or a mask file (white: look)."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Abnormal from here on (default: from --normal, or the batch).")
    ] = None,
    false_alarms: Annotated[
        float, typer.Option(help="With --normal: share of good photographs called abnormal.")
    ] = 0.05,
    format: Annotated[Literal["csv", "jsonl"], typer.Option(help="Of the table.")] = "csv",
    maps: Annotated[Path | None, typer.Option(help="Folder for one heat map (PNG) per image.")] = None,
    explain: Annotated[
        Path | None, typer.Option(help="JSON lines to write: the prompts that decided, and where (alfa only).")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="HTML page to write: a gallery with maps and a slider.")] = None,
    save: Annotated[Path | None, typer.Option(help="Also write the fitted inspector, for Inspector.load.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run of the same call was.")] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Default: the profile's.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Images at a time (default: the profile's).")
    ] = None,
):
    """Score your own images: one row each; a file that cannot be read gets its error in its row, and exit code 1."""
    from tqdm.auto import tqdm

    from zsadlib.inspection.inspector import Inspector, Wanted
    from zsadlib.inspection.partial import Partial
    from zsadlib.inspection.photographs import Photograph, find_files
    from zsadlib.inspection.report import write_report
    from zsadlib.inspection.result import rows

    files = [Photograph(str(path)) for path in find_files(paths, maps)]
    if resume and str(out) == "-":
        raise ValueError("--resume needs a file that a stopped run has begun; give --out FILE")
    if normal and threshold is None and not 0 < false_alarms < 1:
        raise ValueError(f"--false-alarms {false_alarms} is out of range; choose a share between 0 and 1, such as 0.05")
    check_outputs(out, explain, report, save)
    check_folder(maps)
    if explain is not None and method not in (None, "alfa"):
        raise ValueError(f"--explain needs the prompts of an image, which {method} does not choose; use --method alfa")
    inspector = Inspector(
        category, normal or None, method=method or ("alfa" if explain is not None else None), profile=profile, bank=bank,
        prompts=prompts, views=views, roi=region(roi), threshold=threshold, false_alarms=false_alarms,
        device=device, batch_size=batch_size,
    )  # fmt: skip
    trust = inspector.settings.trust
    for note in [*([f"the profile {inspector.settings.name} is {trust}"] if trust else []), *inspector.notes]:
        say(note)
    if save is not None:
        inspector.save(save)
    names = map_names(files)

    def write_map(photograph, anomaly_map):
        from zsadlib.evaluation.plots import save_overlay

        if anomaly_map is not None:
            to, scale = maps / names[photograph.path], inspector.scale(inspector.threshold or 0.5)
            save_overlay(photograph.load(), anomaly_map, to, scale)

    wanted = Wanted(
        maps=False, reasons=explain is not None or report is not None, card=report is not None, each=maps and write_map
    )
    with Partial(out, inspector, files, wanted, resume, maps) as partial:
        try:
            for finding in tqdm(
                inspector.inspect(partial.missing, wanted), "scoring", len(partial.missing), unit="image"
            ):
                partial.add(finding)
        except KeyboardInterrupt:
            kept = f" are in {partial.file}; go on with --resume" if partial.file else " were scored"
            say(f"stopped; {len(partial.found)} of {len(files)}{kept}")
            raise typer.Exit(STOPPED) from None
        findings = partial.findings()
        made, cut = rows(findings, inspector.threshold, inspector.settings.threshold)
        write_table(made, out, format)
        if explain is not None:
            write_lines(made, explain)
        if report is not None:
            cards = [row | {"card": one.card} for row, one in zip(made, findings, strict=True)]
            write_report(report, category, cards, cut, inspector.about(cut))
        partial.done()
    failed = sum(bool(row["error"]) for row in made)
    said = f"{len(made) - failed} images scored, {failed} failed; threshold {cut:.3f}, from {inspector.origin(cut)}"
    tell(f"{said}; see {out}", err=str(out) == "-")
    if failed:
        raise typer.Exit(FAILED_INPUT)


def region(text):
    """What ``--roi`` says: four numbers, or a mask file."""
    if text is None or Path(text).is_file():
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--roi {text} is neither a mask file nor left,top,right,bottom in pixels") from None


def write_table(made, out, kind):
    """Rows as CSV or JSON lines, to a file or stdout. What is no text in the name of a file (bytes that are no UTF-8) is escaped;
    on a terminal, whatever could act there."""
    import pandas as pd

    from zsadlib.files import replacing
    from zsadlib.inspection.result import COLUMNS
    from zsadlib.inspection.text import inert

    table = [{key: row[key] for key in COLUMNS} for row in made]
    if kind == "csv":
        text = pd.DataFrame(table, columns=COLUMNS).to_csv(index=False, lineterminator="\n")
    else:
        text = "".join(json.dumps(row) + "\n" for row in table)
    if str(out) == "-":
        text, encoding = inert(text) if sys.stdout.isatty() else text, sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_lines(made, file):
    """Rows with their reasons as JSON lines."""
    from zsadlib.files import replacing

    with replacing(file) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")


def map_names(files):
    """Heat-map file name of every image: its own name, numbered where two images share it. dict of path -> name."""
    names, taken = {}, Counter()
    for one in files:
        path = Path(one.path)
        name = f"{path.stem}_{path.suffix[1:].lower()}"
        taken[name.lower()] += 1
        again = taken[name.lower()]
        names[one.path] = f"{name}_map.png" if again == 1 else f"{name}_{again}_map.png"
    return names
