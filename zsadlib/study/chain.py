"""The chain of notebooks: validate, execute through papermill, collect results and a manifest."""

import contextlib
import datetime
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tqdm.auto import tqdm

from zsadlib import detectors
from zsadlib.datasets import miniad
from zsadlib.files import CACHE, CLONE, DATA, DRY_RUN, ROOT, replacing
from zsadlib.models import embedded
from zsadlib.models.backbones import LIBRARIES
from zsadlib.models.loading import profile_backbone
from zsadlib.profiles import load_profile
from zsadlib.prompts.banks import prompt_bank_hash
from zsadlib.provenance import PACKAGE, json_hash, sha256, versions
from zsadlib.study.tables import publish_readme

NOTEBOOKS = ROOT / "notebooks"
RESULTS = Path(os.environ.get("ZSAD_RESULTS") or (ROOT / "results" if CLONE else CACHE / "results"))
PACKAGES = (
    *LIBRARIES, "scipy", "pandas", "safetensors", "scikit-learn", "scikit-image", "conformal-clip-data", "papermill",
)  # fmt: skip


def results_folder(profile):
    """Where a notebook puts figures and tables: what ``run`` says, and beside the caches when a reader runs it by hand, so that
    a changed cell never overwrites ``results``. The folder of a dry run is marked.

    Raises:
        ValueError: the profile is a dry run's and the folder lies in ``results``.
    """
    folder = Path(os.environ.get("ZSAD_RESULTS_FOLDER") or CACHE / "notebooks" / Path(profile).stem)
    settings = load_profile(profile)
    keep_out(settings, folder)
    if settings.dry_run:
        with replacing(folder / DRY_RUN) as temporary:
            temporary.write_text("random weights: nothing here is a result\n")
    return folder


def keep_out(profile, folder):
    """Refuse ``results`` to a dry run."""
    inside = RESULTS.resolve() in [Path(folder).resolve(), *Path(folder).resolve().parents]
    if profile.dry_run and inside:
        raise ValueError(f"a dry run has random weights and cannot write into {RESULTS}; give it a folder elsewhere")


def notebook_scripts(only=()):
    """The numbered notebooks as jupytext scripts, in order; ``only`` those that begin with one of some prefixes."""
    return [script for script in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py")) if script.name.startswith(tuple(only) or "")]


def notebook_parameters(script):
    """Parameters of a notebook: name -> default value."""
    import jupytext  # here and below: slow to import, and notebooks need only a folder of this module

    notebook = jupytext.read(script)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            values = {}
            exec(cell.source, {}, values)  # our own cell, plain assignments
            return values
    raise ValueError(f"{script.name} has no cell tagged 'parameters'")


def check_parameters(values, scripts):
    """Each value parsed to the type of its notebook's default, before anything runs.

    Args:
        values: dict of name -> str or value.

    Returns:
        dict of script -> dict of the parameters it takes.

    Raises:
        ValueError: no notebook has such a parameter, or a value does not fit its type or range.
    """
    defaults = {script: notebook_parameters(script) for script in scripts}
    known = sorted({name for d in defaults.values() for name in d})
    chosen = {script: {} for script in scripts}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"unknown parameter '{name}'; the notebooks take {', '.join(known)}")
        for script, own in defaults.items():
            if name in own:
                chosen[script][name] = _fit(name, value, own[name])
    return chosen


def _fit(name, value, default):
    kind = type(default)
    if isinstance(value, str) and kind is not str:
        try:
            value = json.loads(value.lower() if kind is bool else value)
        except json.JSONDecodeError:
            raise ValueError(f"parameter {name}={value!r} is not a {kind.__name__} such as {default!r}") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"parameter {name}={value!r} is not a {kind.__name__} such as {default!r}")
    if isinstance(value, int) and (value < 0 or (name == "limit" and value == 1)):
        raise ValueError(f"parameter {name}={value} is out of range; use 0 (all) or 2 and more")
    return value


def made_of(script, profile):
    """Hash of what a notebook's results depend on: its cells, this package, its weights and banks, the profile, the libraries."""
    ours = [path for path in sorted(PACKAGE.rglob("*")) if path.is_file() and path.parent.name != "__pycache__"]
    code = {path.relative_to(PACKAGE).as_posix(): sha256(path) for path in ours}
    about = [sha256(script), code, prompt_bank_hash(), profile.model_dump(mode="json"), versions(*PACKAGES)]
    return json_hash(about)


def manifest(profile, seconds, parameters, made):
    """What a run was made of: versions, seed, hashes of data, weights and prompts, seconds per notebook, and for each notebook
    what it was ``made_of`` (``--only`` may leave notebooks of different days side by side; then these differ)."""
    stamps = {split: DATA / "miniad" / split / miniad.STAMP for split in ("development", "seen_test")}
    backbone = profile_backbone(profile)
    return {
        "profile": profile.model_dump(mode="json"),
        "backbone_sha256": backbone.fingerprint,
        "random_weights": backbone.random,
        "parameters": parameters,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": versions(*PACKAGES),
        "weights_sha256": {path.name: sha256(path) for path in sorted(embedded.WEIGHTS.parent.glob("*.safetensors"))},
        "miniad": {
            split: dict(reversed(line.split()) for line in stamp.read_text().splitlines())
            for split, stamp in stamps.items() if stamp.is_file()
        },
        "prompt_bank_sha256": prompt_bank_hash(),
        "made_of": made,
        "seconds": seconds,
    }  # fmt: skip


def dry_run_profile(profile, folder):
    """A copy of a profile with random weights and eight images, written to ``folder``; for trying a chain, not for numbers."""
    fields = {"name": f"{profile.name} dry run", "pretrained": "", "shots": (1, 2), "draws": 1}
    fields |= {"seen": (), "test": ("miniad-few",)}
    path = Path(folder) / "dry-run.json"
    with replacing(path) as temporary:
        temporary.write_text(profile.model_copy(update=fields | {"dry_run": True}).model_dump_json(indent=1) + "\n")
    return path


def run(profile_name="mini", parameters=None, results=None, only=(), publish=False):
    """Execute the chain.

    Args:
        profile_name: a profile. parameters: name -> value for the notebooks' parameter cells. results: the folder to
            write (default ``results/<profile>``). only: prefixes of notebooks ("03"), default all.
        publish: copy the executed notebooks over ``notebooks/*.ipynb`` (the ones that are read).

    Returns:
        The results folder. It is replaced as a whole when every notebook has run; a failed run leaves it as it was, and
        its own work, with the notebook that failed, in ``<results>.failed``.

    Raises:
        ValueError: a wrong profile, parameter or notebook, before anything runs.
        papermill.PapermillExecutionError: a cell failed.
    """
    import jupytext
    import nbformat
    import papermill

    profile = load_profile(profile_name)
    if str(profile_name).endswith(".json"):
        profile_name = str(Path(profile_name).resolve())  # notebooks run in their own folder
    if publish and (profile_name != "mini" or parameters or only):
        raise ValueError("only a whole run of the profile 'mini' with its own parameters can be published")
    for method in (*profile.methods, *profile.few_shot):
        detectors.method(method)
    scripts = notebook_scripts(only)
    if not notebook_scripts():
        raise ValueError(f"there are no notebooks in {NOTEBOOKS}; the study runs in a clone of the repository")
    if not scripts:
        raise ValueError(
            f"no notebook starts with {' or '.join(only)}; there are {', '.join(s.stem for s in notebook_scripts())}"
        )
    if "profile" in (parameters or {}):
        raise ValueError("the profile is not a parameter; use --profile NAME")
    defaults = {"profile": profile_name} if profile_name != "mini" else {}
    values = check_parameters(defaults | (parameters or {}), scripts)
    results = Path(results or RESULTS / Path(profile_name).stem)
    keep_out(profile, results)
    earlier = results / "manifest.json"
    if (
        results.is_symlink()
        or results.is_file()
        or (results.is_dir() and any(results.iterdir()) and not earlier.is_file())
    ):
        raise ValueError(f"{results} is not the folder of an earlier run; name one that is, or that does not exist")
    record = json.loads(earlier.read_text()) if only and earlier.is_file() else {}
    if record and record["parameters"] != (parameters or {}):
        raise ValueError(
            f"{results} was made with {record['parameters']}; --only would mix that with {parameters or {}}"
        )
    failed = results.with_name(f"{results.name}.failed")
    shutil.rmtree(failed, ignore_errors=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{results.name}.", dir=results.parent))
    work.chmod(0o755)
    (work / "notebooks").mkdir()
    if only and results.is_dir():
        shutil.copytree(results, work, dirs_exist_ok=True)
    os.environ["ZSAD_RESULTS_FOLDER"] = str(work.resolve())
    seconds, made, executed = dict(record.get("seconds", {})), dict(record.get("made_of", {})), {}
    try:
        with tqdm(scripts, "study", unit="notebook") as progress:
            for script in progress:
                progress.set_postfix_str(script.stem)
                source, output = (
                    work / "notebooks" / f".{script.stem}.ipynb",
                    work / "notebooks" / f"{script.stem}.ipynb",
                )
                jupytext.write(jupytext.read(script), source)
                began = time.perf_counter()
                papermill.execute_notebook(
                    source,
                    output,
                    values[script],
                    cwd=str(NOTEBOOKS),
                    progress_bar=False,
                    kernel_name="python3",
                    extra_arguments=["--IPKernelApp.log_level=ERROR"],
                )
                source.unlink()
                seconds[script.stem] = round(time.perf_counter() - began, 1)
                made[script.stem], executed[script] = made_of(script, profile), output
        with replacing(work / "manifest.json") as temporary:
            temporary.write_text(json.dumps(manifest(profile, seconds, parameters or {}, made), indent=1) + "\n")
    except BaseException:
        with contextlib.suppress(OSError):
            os.replace(work, failed)
        raise
    finally:
        del os.environ["ZSAD_RESULTS_FOLDER"]
    for script, output in executed.items():
        notebook = tidy(nbformat.read(output, 4))
        nbformat.write(notebook, output)
        if publish:
            with replacing(script.with_suffix(".ipynb")) as temporary:
                nbformat.write(notebook, temporary)
    if results.is_dir():
        os.replace(results, old := Path(tempfile.mkdtemp(prefix=f".{results.name}.", dir=results.parent)))
        os.replace(work, results)
        shutil.rmtree(old)
    else:
        os.replace(work, results)
    if publish:
        publish_readme(results)
    return results


def tidy(notebook):
    """Take out of an executed notebook what changes with every run and tells a reader nothing."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:02d}"
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    return notebook
