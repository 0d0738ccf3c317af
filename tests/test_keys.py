"""Cache keys that cannot lie: what a kept result depends on is in its name, and nothing else is."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import write_category

from zsadlib import datasets, profiles, provenance
from zsadlib.detectors.alfa import Alfa
from zsadlib.detectors.base import Detector, Scores, Sees
from zsadlib.files import CACHE, ROOT
from zsadlib.models import embedded, loading
from zsadlib.prompts import banks
from zsadlib.study import benchmark, chain, methods, parallel, units


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A profile that learns from keys and is tested on bolts, with empty caches."""
    monkeypatch.setattr(units, "UNITS", tmp_path / "units")
    monkeypatch.setattr(methods, "FITTED", tmp_path / "fitted")
    write_category(tmp_path / "taught" / "key", "key", good=3, bad=2)
    write_category(tmp_path / "tested" / "bolt", "bolt", good=3, bad=2)
    sets = {"development": (str(tmp_path / "taught"),), "seen": (), "test": (str(tmp_path / "tested"),)}
    return profiles.load_profile("mini").model_copy(update=sets | {"bank": "static", "static": False})


# ---------------------------------------------------------------------------------------------------------- source code


HASHES = """
import json
from zsadlib.provenance import source_hash
from zsadlib.datasets.miniad.splits import split_source
modules = {"units": ["study.units"], "alfa": ["detectors.alfa", "study.units"], "musc": ["detectors.musc", "study.units"],
           "backbone": ["models.loading", "datasets.images"], "recipe": ["training.recipe"],
           "training set": ["training.features"]}
found = {k: source_hash(*(f"zsadlib.{name}" for name in v)) for k, v in modules.items()}
print(json.dumps(found | {split: split_source(split) for split in ("training", "development", "seen_test")}))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    root = tmp_path_factory.mktemp("package")
    shutil.copytree(
        ROOT / "zsadlib", root / "zsadlib", ignore=shutil.ignore_patterns("__pycache__", "recorded", "weights")
    )
    return root, hashes(root)


def hashes(root):
    done = subprocess.run(
        [sys.executable, "-c", HASHES], cwd=root, capture_output=True, text=True, env={"PYTHONPATH": str(root)}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("file", "changed"),
    [("evaluation/metrics.py", {"units", "alfa", "musc"}), ("prompts/scoring.py", {"alfa"}),
     ("detectors/musc.py", {"musc"}), ("detectors/base.py", {"alfa", "musc"}),
     ("datasets/images.py", {"units", "alfa", "musc", "backbone"}), ("datasets/miniad/seen_test.py", {"seen_test"}),
     ("datasets/miniad/development.py", {"development"}), ("datasets/miniad/training.py", {"training", "training set", "recipe"}),
     ("datasets/miniad/defects.py", {"seen_test", "development", "training", "training set", "recipe"}),
     ("datasets/miniad/writing.py", {"seen_test", "development", "training"}), ("datasets/miniad/splits.py", set()),
     ("training/losses.py", {"recipe"}), ("study/tables.py", set()), ("evaluation/plots.py", set()),
     ("detectors/patchcore.py", set()), ("prompts/llm.py", set())],
)  # fmt: skip
def test_a_changed_line_changes_the_hashes_of_what_it_computes_and_no_other(package, file, changed):
    (root, before), path = package, package[0] / "zsadlib" / file
    text = path.read_text()
    path.write_text(text + "\n# changed\n")
    after = hashes(root)
    path.write_text(text)
    assert {name for name in before if before[name] != after[name]} == changed


def test_an_import_inside_a_function_counts(tmp_path, monkeypatch):
    package = tmp_path / "zsadlib"
    package.mkdir()
    (package / "a.py").write_text("def f():\n    from zsadlib import b\n    return b\n")
    (package / "b.py").write_text("import zsadlib.c\n")
    (package / "c.py").write_text("x = 1\n")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    for cached in (provenance.sources, provenance.source_hash, provenance._source):
        cached.cache_clear()
    assert list(provenance.sources("zsadlib.a")) == ["zsadlib.a", "zsadlib.b", "zsadlib.c"]
    for cached in (provenance.sources, provenance.source_hash, provenance._source):
        cached.cache_clear()


# --------------------------------------------------------------------------------------------------------------- units


def test_a_units_name_changes_with_all_that_it_depends_on(plan, backbone, monkeypatch, tmp_path):
    (bolts,) = datasets.load_split(plan.test)
    unit, seen = units.Unit("alfa"), []

    def name(detector=None, category=bolts):
        return units.unit_file(unit, detector or methods.build_detector("alfa", plan, backbone), category).name

    seen.append(name())
    assert name() == seen[0]
    other = methods.build_detector("alfa", plan, backbone)
    other.aligner.matrix = other.aligner.matrix + 1e-3
    seen.append(name(other))  # what was learned
    seen.append(name(Alfa(backbone, None)))
    monkeypatch.setattr(banks, "OWN", tmp_path / "own")
    banks.save_bank(banks.load_bank("gemma-3-270m", "bolt"))
    mixed = plan.model_copy(update={"bank": "gemma-3-270m"})
    seen.append(name(methods.build_detector("alfa", mixed, backbone)))
    changed = banks.load_bank("gemma-3-270m", "bolt")
    changed.answers.normal.append("a bolt of a new kind")
    banks.save_bank(changed)
    seen.append(name(methods.build_detector("alfa", mixed, backbone)))  # the contents of a bank's file
    monkeypatch.setattr(units, "versions", lambda *_: {"numpy": "99"})
    seen.append(name())
    monkeypatch.undo()
    monkeypatch.setitem(backbone.__dict__, "fingerprint", "another precision")
    seen.append(name())
    assert len(set(seen)) == len(seen)


def test_the_fingerprint_changes_with_libraries_and_precision(monkeypatch):
    def fingerprint(backbone):
        backbone.__dict__.pop("fingerprint", None)
        return backbone.fingerprint

    plain, low = loading.load_backbone(), loading.load_backbone(precision="bfloat16")
    before = fingerprint(plain)
    assert before == fingerprint(plain) != fingerprint(low)
    monkeypatch.setattr("zsadlib.models.backbones.versions", lambda *_: {"torch": "99"})
    assert fingerprint(plain) != before
    monkeypatch.undo()
    assert fingerprint(plain) == before


def test_the_fingerprint_does_not_depend_on_where_data_lies(tmp_path, monkeypatch):
    backbone = loading.load_backbone()
    backbone.__dict__.pop("fingerprint", None)
    before = backbone.fingerprint
    (tmp_path / "all-MiniLM-L6-v2").symlink_to(CACHE / "all-MiniLM-L6-v2")
    monkeypatch.chdir(tmp_path.parent)
    (tmp_path.parent / "token").mkdir(exist_ok=True)  # as a part of the architecture is called
    try:
        for folder in (tmp_path, tmp_path.name):
            embedded.register(folder)
            del backbone.fingerprint
            assert backbone.fingerprint == before
    finally:
        embedded.register(CACHE)


def test_the_fingerprint_changes_with_the_architecture(monkeypatch):
    backbone, config = loading.load_backbone(), loading.open_clip.get_model_config(embedded.NAME)
    backbone.__dict__.pop("fingerprint", None)
    seen, text = [backbone.fingerprint], config["text_cfg"]
    for other in ({"hf_pooler_type": "max_pooler"}, {"hf_tokenizer_name": "bert-base-uncased"}):
        monkeypatch.setattr(loading.open_clip, "get_model_config", lambda _, o=other: config | {"text_cfg": text | o})
        del backbone.fingerprint
        seen.append(backbone.fingerprint)
    del backbone.fingerprint
    assert len(set(seen)) == 3


@pytest.mark.parametrize("content", ["", "{", '{"metrics": {', "[]", "null", '{"metrics": {}}', "\x00" * 40])
def test_an_unreadable_unit_is_a_missing_unit(content, plan, backbone):
    bolts, asked = datasets.load_split(plan.test), [units.Unit("clip-ac"), units.Unit("alfa")]
    table = benchmark.evaluate(plan, backbone, bolts, asked)
    files = sorted(units.UNITS.rglob("*.json"))
    assert len(files) == 2 and units.kept(files[0])
    for file in files:
        file.write_text(content)
        assert units.kept(file) is None
    assert benchmark.evaluate(plan, backbone, bolts, asked).equals(table)
    assert all(units.kept(file) for file in files)


def test_an_unreadable_unit_is_computed_again_by_workers_too(plan, backbone, monkeypatch):
    bolts, asked = datasets.load_split(plan.test), [units.Unit("clip-ac")]
    table = benchmark.evaluate(plan, backbone, bolts, asked)
    (file,) = units.UNITS.rglob("*.json")
    file.write_text("{")
    calls = []
    monkeypatch.setattr(parallel.joblib, "delayed", lambda f: lambda *a: (calls.append(a) or f, a, {}))
    monkeypatch.setattr(parallel.joblib, "Parallel", lambda **_: lambda tasks: [f(*a, **k) for f, a, k in tasks])
    assert parallel.evaluate(plan, bolts, asked).equals(table) and len(calls) == 1


def test_a_profiles_batch_size_stays_its_own(plan):
    small, large = (loading.profile_backbone(plan.model_copy(update={"batch_size": n})) for n in (2, 7))
    assert (small.batch_size, large.batch_size) == (2, 7) and small.model is large.model
    assert loading.load_backbone().batch_size == 16 and small.fingerprint == large.fingerprint


# ------------------------------------------------------------------------------------------------------ what is learned


class Learner(Detector):
    """Learns the mean picture of the defects of other categories."""

    name, sees, fits = "learner", frozenset({Sees.OTHER_PICTURES, Sees.OTHER_LABELS, Sees.OTHER_MASKS}), 0
    knob = 1.0

    def fit(self, categories):
        Learner.fits += 1
        batch = [datasets.load_image(s.path) for c in categories for s in c.test if s.label]
        self.mean = self.knob * self.backbone.encode(self.backbone.preprocess(batch)).image.mean(0)
        return self

    def fit_settings(self):
        return {"knob": self.knob}

    def weights(self):
        return {"mean": self.mean} if hasattr(self, "mean") else {}

    def load_weights(self, weights):
        self.mean = weights["mean"]
        return self

    def prepare(self, category, support=None):
        return self

    def score(self, encoded):
        score = encoded.image @ self.mean
        return Scores(score, None, score > 0, ["defective" if s > 0 else "fine" for s in score])


def test_what_was_learned_is_kept_until_anything_it_came_from_changes(plan, backbone, monkeypatch, tmp_path):
    Learner.fits = 0

    def fits():
        before = Learner.fits
        learned = methods.taught(Learner(backbone), plan)
        return Learner.fits - before, learned.mean

    count, first = fits()
    assert count == 1
    count, again = fits()
    assert count == 0 and torch.equal(first, again)
    key = tmp_path / "taught" / "key"
    mask = next((key / "ground_truth" / "crack").iterdir())
    other = next((key / "ground_truth" / "burn").iterdir())
    changes = [
        lambda: mask.write_bytes(other.read_bytes()),
        lambda: (key / "test" / "good" / "00.png").write_bytes((key / "test" / "burn" / "00.png").read_bytes()),
        lambda: shutil.move(key / "test" / "good", key / "test" / "spoiled") and shutil.rmtree(key / "ground_truth"),
        lambda: monkeypatch.setattr(Learner, "knob", 2.0),
        lambda: monkeypatch.setattr(methods, "versions", lambda *_: {"torch": "99"}),
        lambda: monkeypatch.setattr(methods, "source_hash", lambda *_: "another line"),
        lambda: monkeypatch.setitem(backbone.__dict__, "fingerprint", "other weights"),
    ]
    for change in changes:
        change()
        assert fits()[0] == 1 and fits()[0] == 0
    for file in methods.FITTED.iterdir():
        file.write_bytes(b"damaged")
    assert fits()[0] == 1 and fits()[0] == 0


def test_the_runner_teaches_and_refuses_what_taught(plan, backbone, monkeypatch):
    Learner.fits = 0
    monkeypatch.setitem(methods.detectors.METHODS, "learner", f"{__name__}.Learner")
    unit = [units.Unit("learner")]
    table = benchmark.evaluate(plan, backbone, datasets.load_split(plan.test), unit)
    assert Learner.fits == 1 and set(table.metric) == {"image_auroc", "image_ap", "image_f1max"}
    said = "pictures of other categories + labels of other categories + masks of other categories"
    assert set(table.sees) == {said}
    for run in (benchmark.evaluate, lambda p, b, c, u: parallel.evaluate(p, c, u)):
        with pytest.raises(ValueError, match="learner learned from key and cannot be scored on it"):
            run(plan, backbone, datasets.load_split(plan.development), unit)
    both = plan.model_copy(update={"test": plan.development})
    aligned = methods.build_detector("alfa", plan, backbone)
    with pytest.raises(ValueError, match="alfa learned from key"):  # pictures only, but the set is reported
        benchmark.evaluate(both, backbone, datasets.load_split(both.test), [units.Unit("alfa")], {"alfa": aligned})
    allowed = benchmark.evaluate(plan, backbone, datasets.load_split(plan.development), [units.Unit("alfa")])
    assert np.isfinite(allowed.value).all()


# ------------------------------------------------------------------------------------------------------------ manifest


def test_a_manifest_says_what_each_notebook_was_made_of(tmp_path, monkeypatch):
    profile = profiles.load_profile("mini")
    first, second = chain.notebook_scripts()[:2]
    made = chain.made_of(first, profile)
    assert made == chain.made_of(first, profile) != chain.made_of(second, profile)
    assert made != chain.made_of(first, profile.model_copy(update={"precision": "bfloat16"}))
    monkeypatch.setattr(chain, "versions", lambda *_: {"torch": "99"})
    assert made != chain.made_of(first, profile)
    monkeypatch.undo()
    monkeypatch.setattr(banks, "OWN", tmp_path)
    banks.save_bank(banks.load_bank("strong", "bolt"))
    assert made == chain.made_of(first, profile)  # the same answers
    bank = banks.load_bank("strong", "bolt")
    bank.answers.normal.append("another sentence")
    banks.save_bank(bank)
    assert made != chain.made_of(first, profile)
