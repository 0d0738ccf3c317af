"""The house: who imports whom, how long a module may be, what is loaded at once, and a new method by the recipe."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import typer
from conftest import write_category

from zsadlib import profiles, provenance
from zsadlib.cli import app
from zsadlib.detectors import METHODS
from zsadlib.files import CACHE, PACKAGE, ROOT
from zsadlib.study import chain

MODULES = sorted(PACKAGE.rglob("*.py"))
LINT = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]


def lint_imports(root):
    """import-linter on the package that lies in a folder, with the project's contract."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [*LINT, "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_each_folder_imports_only_what_stands_below_it():
    done = lint_imports(ROOT)
    assert done.returncode == 0 and "layers KEPT" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def package(tmp_path):
    """A copy of the package, to change."""
    shutil.copytree(PACKAGE, tmp_path / "zsadlib", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "zsadlib"


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("files.py", "import zsadlib.profiles\n"),
        ("detectors/musc.py", "\ndef late():\n    from zsadlib.study import units\n    return units\n"),
        ("evaluation/metrics.py", "from zsadlib.datasets import images\n"),
    ],
)
def test_a_layer_that_looks_up_is_found(package, file, line):
    (package / file).write_text((package / file).read_text() + line)
    done = lint_imports(package.parent)
    assert done.returncode == 1 and "layers BROKEN" in done.stdout, done.stdout + done.stderr


def test_a_folder_that_the_contract_does_not_know_is_found(package):
    (package / "extra.py").write_text('"""Outside."""\n')
    assert lint_imports(package.parent).returncode == 1


def test_modules_are_small_and_say_what_they_are():
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, f"{path} has more than 400 lines: split it by ideas"
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def dotted(path):
    """The name of a module, or of a package where the file is its ``__init__``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def defined_in(path):
    """Names that a file defines itself, and does not just pass on."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_the_library_imports_modules_and_not_packages():
    """What a cache key depends on is read from imports: a name that is taken from a package, or relatively, would be missed."""
    packages = {dotted(path): path for path in MODULES if path.stem == "__init__"}
    modules = {dotted(path): path for path in MODULES if path.stem != "__init__"}
    made = ["zsadlib.training.recipe", *(name for name in modules if name.startswith("zsadlib.detectors."))]
    splits = [f"zsadlib.datasets.miniad.{name}" for name in ("training", "development", "seen_test", "writing")]
    in_keys = provenance.sources("zsadlib.study.units", "zsadlib.models.loading", *made, *splits)
    assert set(made + splits) <= set(in_keys) and len(in_keys) > 30
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            assert node.level == 0, f"{name}: write out the whole name of what it imports from"
            if node.module in packages:
                allowed = set(modules)
                if name not in in_keys:
                    allowed |= {*packages, *(f"{node.module}.{own}" for own in defined_in(packages[node.module]))}
                found = {f"{node.module}.{one.name}" for one in node.names}
                assert found <= allowed, f"{name} takes {found - allowed} from a package; import its module"


@pytest.mark.parametrize("module", ["zsadlib", "zsadlib.detectors", "zsadlib.profiles", "zsadlib.cli"])
def test_what_a_command_needs_at_once_loads_no_model_library(module):
    code = f"import sys, {module}; print({{'torch', 'open_clip', 'timm', 'matplotlib', 'sklearn'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stdout + done.stderr


def names_used(text):
    """Names that source code reads, calls, or imports; where they are defined does not count."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]


def test_every_public_name_is_used_somewhere():
    """By the package, a notebook, the measurements or the README; a test of its own is not a use, nor is a list of exports."""
    notebooks, peers = sorted((ROOT / "notebooks").rglob("*.py")), sorted((ROOT / "tests" / "peers").glob("*.py"))
    readers = [path for path in (*MODULES, *notebooks, *peers) if path.stem != "__init__"]
    used = {name for path in readers for name in names_used(path.read_text(encoding="utf-8"))}
    used |= {path.rpartition(".")[2] for path in METHODS.values()}
    used |= set(re.findall(r"\w+", (ROOT / "README.md").read_text(encoding="utf-8")))
    unused = []
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                registered = any(re.search("app|register", ast.unparse(one)) for one in node.decorator_list)
                if node.name not in used and not registered:
                    unused.append(f"{dotted(path)}.{node.name}")
    assert not unused


# ------------------------------------------------------------------------------------------------ a method by the recipe


def code_block(mark):
    """The Python of CONTRIBUTING.md that follows a mark."""
    return (ROOT / "CONTRIBUTING.md").read_text().split(f"<!-- {mark} -->\n```python\n")[1].split("```")[0]


def test_the_commands_for_contributors_can_be_called():
    """Each has the options that it needs, and none that it has not; the notebook and the test files that are named exist."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    called = [one or other for one, other in re.findall(r"`zsad\s([^`]+)`|^    zsad (.+)$", text, re.MULTILINE)]
    assert len(called) >= 4
    for line in called:
        command, words = typer.main.get_command(app), shlex.split(line)
        context = command.make_context("zsad", list(words))
        while hasattr(command, "resolve_command"):
            name, command, words = command.resolve_command(context, words)
            context = command.make_context(name, list(words), parent=context)
        assert all(chain.notebook_scripts([prefix]) for prefix in context.params.get("only") or ())
    named = re.findall(r"\b(?:tests|zsadlib)/[\w/]+\.py", text)
    assert named and all((ROOT / path).is_file() for path in named)


def test_the_recipes_method_stands_in_the_table_and_in_the_help(package, tmp_path):
    registry = package / "detectors" / "__init__.py"
    (package / "detectors" / "direction.py").write_text(code_block("method"))
    registry.write_text(registry.read_text().replace("METHODS = {\n", "METHODS = {\n" + code_block("line")))
    taught = write_category(tmp_path / "taught" / "key", "key")
    tested = write_category(tmp_path / "tested" / "bolt")
    cache = tmp_path / "data" / "cache"
    cache.mkdir(parents=True)
    (cache / "all-MiniLM-L6-v2").symlink_to(CACHE / "all-MiniLM-L6-v2")
    sets = {
        "development": (str(taught.parent),),
        "seen": (),
        "test": (str(tested.parent),),
        "methods": ("direction", "clip-ac"),
    }
    plan = profiles.load_profile("mini").model_copy(update=sets | {"few_shot": (), "bank": "static", "static": False})
    (tmp_path / "small.json").write_text(plan.model_dump_json())

    def zsad(*arguments):
        environment = os.environ | {
            "PYTHONPATH": str(tmp_path), "ZSAD_DATA": str(tmp_path / "data"), "COLUMNS": "200", "OMP_NUM_THREADS": "2",
        }  # fmt: skip
        command = [sys.executable, "-m", "zsadlib.cli", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    asked = ["--methods", "direction,clip-ac", "--profile", tmp_path / "small.json"]
    done = zsad("evaluate", "--root", tested, "--category", "bolt", "--out", tmp_path / "table.csv", *asked)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "table.csv")
    own = table[table.method == "direction"]
    assert set(own.sees) == {"pictures of other categories + labels of other categories"}
    assert set(own.metric) == {"image_auroc", "image_ap", "image_f1max"} and own.value.between(0, 1).all()
    assert set(table[table.method == "clip-ac"].metric) > set(own.metric)
    assert len(list((cache / "fitted").iterdir())) == 1
    done = zsad("evaluate", "--root", taught, "--category", "key", "--out", tmp_path / "none.csv", *asked)
    assert done.returncode == 2 and "direction learned from key and cannot be scored on it" in done.stderr, done.stderr
    assert not (tmp_path / "none.csv").exists()
    assert "direction" in zsad("score", "--help").stdout and "direction" in zsad("methods").stdout
    assert lint_imports(tmp_path).returncode == 0
