"""The package works when it is installed as a wheel, in a folder that is not the repository."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from zsadlib.files import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with nothing but the installed wheel, to be put first on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    source, site = folder / "source", folder / "site"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "zsadlib", source / "zsadlib", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-compile", "--target", str(site), str(wheel)], check=True, cwd=folder
    )
    return site


def zsad(installed, folder, *arguments, data=None):
    """Run the installed command line in ``folder``."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ZSAD")}
    environment |= {"PYTHONPATH": str(installed), "HOME": str(folder), "XDG_DATA_HOME": str(folder / "share")}
    environment |= {"ZSAD_DATA": str(data)} if data else {}
    command = [sys.executable, "-m", "zsadlib.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_an_installed_package_scores_with_the_shipped_model_and_banks(installed, tmp_path):
    where = [sys.executable, "-c", "import zsadlib; print(zsadlib.__file__)"]
    found = subprocess.run(
        where, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(installed))
    assert zsad(installed, tmp_path, "examples", "photos").returncode == 0
    run = zsad(
        installed, tmp_path, "score", "photos", "--category", "bolt", "--out", "scores.csv", "--report", "r.html"
    )
    assert run.returncode == 0 and "static prompts" not in run.stderr, run.stderr
    assert len(pd.read_csv(tmp_path / "scores.csv")) == 3 and (tmp_path / "r.html").stat().st_size > 20_000
    listed = zsad(installed, tmp_path, "prompts", "list").stdout
    assert "gemma-3-270m" in listed and "mini" in zsad(installed, tmp_path, "profiles").stdout
    seen = {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")}  # matplotlib keeps a folder of its own
    assert seen == {"photos", "scores.csv", "r.html", "share"}  # nothing else is touched
    assert (tmp_path / "share" / "zsad" / "cache").is_dir()


def test_zsad_data_moves_data_and_never_the_shipped_banks(installed, tmp_path):
    data = tmp_path / "elsewhere"
    assert zsad(installed, tmp_path, "examples", "photos", data=data).returncode == 0
    run = zsad(installed, tmp_path, "score", "photos", "--category", "bolt", "--out", "scores.csv", data=data)
    assert run.returncode == 0 and "static prompts" not in run.stderr and (data / "cache").is_dir()
    own = data / "prompts" / "mine" / "bolt.json"
    own.parent.mkdir(parents=True)
    shipped = next(installed.rglob("recorded/gemma-3-270m/bolt.json"))
    own.write_text(shipped.read_text().replace('"gemma-3-270m"', '"mine"'))
    (own.parent / "index.json").write_text("{}")
    assert "mine: 1 categories" in zsad(installed, tmp_path, "prompts", "list", data=data).stdout
    same = zsad(
        installed, tmp_path, "score", "photos", "--category", "bolt", "--bank", "mine", "--out", "b.csv", data=data
    )
    assert same.returncode == 0, same.stderr
    assert pd.read_csv(tmp_path / "b.csv").equals(pd.read_csv(tmp_path / "scores.csv"))


def test_the_study_says_that_it_needs_a_clone(installed, tmp_path):
    run = zsad(installed, tmp_path, "study")
    assert run.returncode == 2 and "runs in a clone of the repository" in run.stderr
