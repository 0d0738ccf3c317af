"""The chain, the command line, and the project's files against each other."""

import json
import re
import shutil
import tomllib

import jupytext
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import yaml
from conftest import write_category
from typer.testing import CliRunner

from zsadlib import cli, datasets, profiles
from zsadlib.datasets import miniad
from zsadlib.evaluation import metrics
from zsadlib.files import ROOT, replacing
from zsadlib.models import embedded, loading
from zsadlib.prompts.banks import prompt_bank_hash
from zsadlib.provenance import sha256
from zsadlib.study import chain, methods, tables, units

run_cli = CliRunner().invoke
MINI = ROOT / "results" / "mini"


# ------------------------------------------------------------------------------------------------------ the chain


@pytest.fixture(scope="session")
def small_study(tmp_path_factory):
    """The whole chain through papermill, a few images per category."""
    folder = tmp_path_factory.mktemp("study") / "mini"
    return chain.run("mini", {"limit": "6", "draws": "1"}, folder)


def test_the_chain_runs_end_to_end(small_study):
    names = [p.stem for p in chain.notebook_scripts()]
    assert [p.stem for p in sorted((small_study / "notebooks").glob("*.ipynb"))] == names and len(names) >= 6
    record = json.loads((small_study / "manifest.json").read_text())
    assert set(record["seconds"]) == set(names) and record["parameters"] == {"limit": "6", "draws": "1"}
    assert record["weights_sha256"][embedded.WEIGHTS.name] == sha256(embedded.WEIGHTS)
    assert record["prompt_bank_sha256"] == prompt_bank_hash()
    table = pd.read_csv(small_study / "benchmark.csv")
    assert list(table) == tables.COLUMNS and table.value.between(0, 1).all()
    profile = profiles.load_profile("mini")
    assert set(table.method) == set(profile.methods) and record["random_weights"] is False
    few = pd.read_csv(small_study / "few_shot.csv")
    assert (
        list(few) == tables.COLUMNS
        and set(few.method) == set(profile.few_shot)
        and set(few.sees) == {"normals of the object", "pictures of other categories + normals of the object"}
    )
    assert set(few.shots) == set(profile.shots) and few.seed.nunique() == profile.draws
    assert set(record["made_of"]) == set(names) and set(record["miniad"]) == {"development", "seen_test"}
    for name in ("zero_shot_means", "zero_shot_categories", "few_shot_means", "few_shot_spread"):
        assert (small_study / "tables" / f"{name}.csv").is_file()
        assert r"\begin{tabular}" in (small_study / "tables" / f"{name}.tex").read_text()
    assert len(list((small_study / "figures").glob("*.png"))) >= 6


def test_a_number_of_the_table_can_be_recomputed(small_study, backbone):
    data = next(c for c in datasets.load_miniad("seen_test") if c.name == "plate").take(6)
    detector = methods.build_detector("winclip", profiles.load_profile("mini"), backbone).prepare("plate")
    scores, maps = methods.predict_category(detector, data)
    table = pd.read_csv(small_study / "benchmark.csv")
    row = table[(table.method == "winclip") & (table.category == "plate") & (table.metric == "pixel_auroc")]
    masks = np.stack([datasets.load_mask(s, maps.shape[-1]) for s in data.test])
    assert row.value.item() == pytest.approx(metrics.pixel_metrics(masks, maps)["pixel_auroc"], abs=1e-4)


def test_a_dry_run_is_marked_and_stays_out_of_results(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "UNITS", tmp_path / "units")
    small = {
        "backbone": "ViT-S-32-alt",
        "pretrained": "",
        "image_size": 224,
        "layers": (6,),
        "map_size": 64,
        "name": "small",
    }
    plan = profiles.load_profile("paper").model_copy(update=small)
    (tmp_path / "small.json").write_text(plan.model_dump_json())
    out = tmp_path / "out"
    arguments = ["study", "--profile", str(tmp_path / "small.json"), "--dry-run", "--only", "05", "--only", "06"]
    result = run_cli(cli.app, [*arguments, "--results", str(out)])
    assert result.exit_code == 0, result.output
    assert (
        re.search(r"MVTec AD.*1725 .*\n.*VisA.*2162 ", result.output) and "extrapolated from 8 images" in result.output
    )
    record = json.loads((out / "manifest.json").read_text())
    assert record["random_weights"] is True and record["profile"]["dry_run"] is True and (out / "DRY-RUN").is_file()
    tables = [*out.glob("*.csv"), *out.glob("tables/*.csv"), *out.glob("tables/*.tex")]
    assert len(tables) > 6 and all("random weights" in table.read_text() for table in tables)
    dry = chain.dry_run_profile(plan, tmp_path)
    scored = run_cli(cli.app, ["score", str(tmp_path), "--category", "x", "--out", "o.csv", "--profile", str(dry)])
    assert scored.exit_code == 2
    refused = run_cli(cli.app, [*arguments, "--results", str(ROOT / "results" / "small")])
    assert (
        refused.exit_code == 2 and "cannot write into" in refused.output and not (ROOT / "results" / "small").exists()
    )
    dry = chain.dry_run_profile(plan, tmp_path)
    monkeypatch.setenv("ZSAD_RESULTS_FOLDER", str(ROOT / "results" / "small"))
    with pytest.raises(ValueError, match="cannot write into"):
        chain.results_folder(str(dry))
    with pytest.raises(ValueError, match="random weights are refused"):
        loading.profile_backbone(plan)


def test_sets_come_by_what_they_are_for(tmp_path):
    write_category(tmp_path / "chosen" / "key", "key")
    write_category(tmp_path / "told" / "bolt", "bolt")
    write_category(tmp_path / "known" / "coin", "coin")
    shutil.rmtree(tmp_path / "told" / "bolt" / "ground_truth")
    sets = {
        part: (str(tmp_path / name),) for part, name in (("development", "chosen"), ("seen", "known"), ("test", "told"))
    }
    plan = profiles.load_profile("mini").model_copy(update=sets)

    def found(**options):
        return {split: [(c.name, len(c.test)) for c in some] for split, some in datasets.load_splits(**options).items()}

    three = {"development": [("key", 3)], "seen test": [("coin", 3)], "test": [("bolt", 3)]}
    assert found(profile=plan, limit=3) == three and datasets.reported_split(three) == "test"
    masked = found(profile=plan, limit=3, masks=True)
    assert masked == {"development": [("key", 3)], "seen test": [("coin", 3)]}
    assert datasets.reported_split(masked) == "seen test"
    assert list(found(profile=plan.model_copy(update={"seen": ()}))) == ["development", "test"]
    for nothing in ({"development": []}, {}):  # the second: no set has masks
        with pytest.raises(ValueError, match="nothing to report on beside development"):
            datasets.reported_split(nothing)


def test_the_readme_says_of_the_llm_what_notebook_9_measured():
    """No better than as many static ones, and no better than its own examples cut up, until a run says otherwise."""
    table = pd.read_csv(MINI / "controls_llm.csv")
    assert "do no better than as many static ones" in (ROOT / "README.md").read_text()
    rivals = table[table.control.isin(["static-like", "recombined"])]
    assert len(rivals) >= 4 and (rivals.high >= 0).all()


def test_the_profiles_are_valid_and_say_the_published_settings():
    paper, large = profiles.load_profile("paper"), profiles.load_profile("large")
    assert profiles.profile_names() == ["large", "mini", "paper"]
    assert (paper.backbone, paper.pretrained, paper.image_size) == ("ViT-B-16-plus-240", "laion400m_e32", 240)
    assert (large.pretrained, large.image_size, large.layers) == ("openai", 518, (6, 12, 18, 24))
    assert paper.test == large.test == ("mvtec-ad", "visa") and paper.precision == "float32"
    assert paper.shots == (1, 2, 4) and paper.draws == 5 and not paper.dry_run


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"limt": 3}, "unknown parameter 'limt'"), ({"limit": "many"}, "is not a int"), ({"limit": 1.5}, "is not a int"),
     ({"limit": -1}, "out of range"), ({"limit": 1}, "out of range"), ({"profile": "huge"}, "unknown parameter|unknown profile")],
)  # fmt: skip
def test_wrong_parameters_fail_before_anything_runs(tmp_path, parameters, message):
    name = parameters.pop("profile", "mini")
    with pytest.raises(ValueError, match=message):
        chain.run(name, parameters, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_category_says_what_to_do_and_replay_needs_no_key(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(papermill.PapermillExecutionError, match="zsad prompts record --llm gemma-3-270m --category"):
        chain.run("mini", {"category": "teapot"}, tmp_path / "out", only=["01"])


def test_a_notebook_run_by_hand_never_writes_over_the_results(monkeypatch, tmp_path):
    monkeypatch.delenv("ZSAD_RESULTS_FOLDER", raising=False)
    own = tmp_path / "mine.json"
    own.write_text((profiles.FOLDER / "mini.json").read_text())
    for profile in ("mini", str(own)):
        folder = chain.results_folder(profile)
        assert folder.name in ("mini", "mine") and chain.RESULTS not in folder.parents and folder.suffix == ""
    monkeypatch.setenv("ZSAD_RESULTS_FOLDER", str(tmp_path))
    assert chain.results_folder("mini") == tmp_path


def test_a_failing_notebook_keeps_the_old_results(tmp_path, monkeypatch):
    notebooks, results = tmp_path / "notebooks", tmp_path / "results"
    notebooks.mkdir()
    header = chain.notebook_scripts()[0].read_text().split("# %%")[0]
    cells = '# %% tags=["parameters"]\nlimit = 0\n\n# %%\nassert limit != 13, "unlucky"\n'
    (notebooks / "00_try.py").write_text(header + cells)
    monkeypatch.setattr(chain, "NOTEBOOKS", notebooks)
    chain.run("mini", {"limit": 2}, results)
    before = (results / "manifest.json").read_bytes()
    with pytest.raises(papermill.PapermillExecutionError, match="unlucky"):
        chain.run("mini", {"limit": 13}, results)
    assert (results / "manifest.json").read_bytes() == before
    assert (tmp_path / "results.failed" / "notebooks" / "00_try.ipynb").is_file()
    with pytest.raises(ValueError, match="no notebook starts with 99"):
        chain.run("mini", only=["99"], results=results)
    with pytest.raises(ValueError, match="would mix"):
        chain.run("mini", only=["00"], results=results)
    with pytest.raises(ValueError, match="can be published"):
        chain.run("mini", {"limit": 2}, results, publish=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").touch()
    with pytest.raises(ValueError, match="not the folder of an earlier run"):
        chain.run("mini", {"limit": 2}, tmp_path / "photos")
    assert (tmp_path / "photos" / "mine.jpg").is_file()


# ------------------------------------------------------------------------------------- the project's files agree


def test_scripts_and_notebooks_are_the_same_and_executed():
    for script in chain.notebook_scripts():
        notebook = nbformat.read(script.with_suffix(".ipynb"), 4)
        pair = [c.source for c in jupytext.read(script).cells]
        assert [c.source for c in notebook.cells] == pair, f"{script.name} and its ipynb differ: zsad study --publish"
        assert all(c.execution_count for c in notebook.cells if c.cell_type == "code"), script.name
        assert not [o for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "error"], script.name
        assert "PosixPath(" not in script.with_suffix(".ipynb").read_text(), (
            f"{script.name} shows a path of one machine"
        )
        assert script.with_suffix(".ipynb").stat().st_size < 400_000, script.name  # opens at once in a browser


def test_notebooks_are_readable():
    for script in chain.notebook_scripts():
        cells = jupytext.read(script).cells
        code = [c.source for c in cells if c.cell_type == "code"]
        prose = [c.source for c in cells if c.cell_type == "markdown"]
        lengths = sorted(len(c.splitlines()) for c in code)
        assert lengths[len(lengths) // 2] <= 8 and lengths[int(0.9 * len(lengths))] <= 20, script.name
        assert sum("def " in c for c in code) <= max(2, 0.15 * len(code)), script.name
        assert "**Question.**" in prose[0] and chain.notebook_parameters(script)["profile"] == "mini", script.name


def test_committed_results_belong_to_the_committed_weights_and_prompts():
    record = json.loads((MINI / "manifest.json").read_text())
    for folder in (p for p in (ROOT / "results").iterdir() if p.is_dir() and "." not in p.name):
        other = json.loads((folder / "manifest.json").read_text())
        assert other["weights_sha256"] == record["weights_sha256"], folder
    weights = {p.name: sha256(p) for p in embedded.WEIGHTS.parent.glob("*.safetensors")}
    assert record["weights_sha256"] == weights and record["prompt_bank_sha256"] == prompt_bank_hash()
    assert record["profile"] == profiles.load_profile("mini").model_dump(mode="json") and record["parameters"] == {}
    assert set(record["seconds"]) == {p.stem for p in chain.notebook_scripts()}


def test_the_readme_table_is_the_committed_benchmark():
    table = pd.read_csv(MINI / "summary.csv")
    assert tables.markdown(table) in (ROOT / "README.md").read_text(), "run: zsad study --publish"
    shown = pd.read_csv(MINI / "tables" / "zero_shot_means.csv", header=[0, 1], index_col=[0, 1, 2, 3])  # by notebook 5
    exact = tables.reported(pd.read_csv(MINI / "benchmark.csv"))
    for row in table.itertuples():
        key = (row.dataset, row.method, row.sees, row.shots)
        for metric in exact.columns:
            quoted = getattr(row, metric)
            assert str(quoted) == str(shown.loc[key, (metric, "ours")]) and (
                quoted == pytest.approx(exact.loc[key, metric], abs=0.11) or pd.isna(quoted)
            )


def test_the_readme_counts_are_right():
    readme = (ROOT / "README.md").read_text()
    counts = {split: len(names) for split, names in miniad.SPLITS.items()}
    for words in (
        f"{len(miniad.CATEGORIES)} categories", f"{len(miniad.KINDS)}\nkinds of defect", f"{counts['training']} training",
        f"{counts['development']} development", f"{counts['seen_test']} seen test",
    ):  # fmt: skip
        assert words in readme, words


def test_the_committed_benchmark_is_far_from_chance_on_development():
    table = pd.read_csv(MINI / "benchmark.csv")
    means = table[table.dataset == "MiniAD development"].pivot_table(index="method", columns="metric", values="value")
    assert means.image_auroc[["winclip", "alfa"]].min() >= 0.80
    assert means.pixel_auroc["alfa"] >= 0.85 and means.pixel_auroc["alfa"] - means.pixel_auroc["clip-ac"] >= 0.25


def test_pins_cover_the_requirements_and_conda_uses_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.strip().lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    needed = [*project["dependencies"], *(r for group in project["optional-dependencies"].values() for r in group)]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", r) for r in needed), "versions belong into constraints.txt"
    assert not [r for r in needed if r.lower().replace("_", "-") not in pins]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert sorted(d.split("=")[0] for d in conda) == ["pip", "python"] and pip == ["-c constraints.txt", "-e ."]
    for line in (ROOT / "environment.yml").read_text().split("dependencies:")[1].splitlines():
        assert not line.strip() or line.strip() == "- pip:" or "#" in line, f"no reason given: {line}"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    with replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]
