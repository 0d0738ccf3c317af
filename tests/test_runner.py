"""The runner: what it asks of a method, teaches it, keeps of it, and forgives."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_category

from zsadlib import datasets, profiles, provenance
from zsadlib.detectors import METHODS
from zsadlib.detectors.alfa import Alfa
from zsadlib.detectors.base import Detector, Memory, Scores, Sees
from zsadlib.models import loading
from zsadlib.models.aligner import Aligner
from zsadlib.study import benchmark, chain, methods, parallel, units


class Toy(Detector):
    """Judges by the first direction of the embedding; learns its sign from labelled keys, and from nothing else."""

    name, sees, learned = "toy", frozenset({Sees.OTHER_PICTURES, Sees.OTHER_LABELS}), []

    def __init__(self, backbone, map_size=192, strength=1.0):
        super().__init__(backbone, map_size)
        self.strength, self.layer = strength, None

    def fit(self, categories):
        self.learned.append([category.name for category in categories])
        self.layer = torch.nn.Linear(self.backbone.dim, 1)
        torch.nn.init.constant_(self.layer.weight, self.strength)
        return self

    def weights(self):
        return dict(self.layer.state_dict()) if self.layer else {}

    def load_weights(self, weights):
        self.layer = torch.nn.Linear(self.backbone.dim, 1)
        self.layer.load_state_dict(weights)
        return self

    def prepare(self, category, support=None):
        return self

    def score(self, encoded):
        score = encoded.image.sum(1) * self.strength
        return Scores(score, None, score > 0, ["defective" if s > 0 else "fine" for s in score])


class Contrary(Toy):
    """Another method of the same module."""

    def score(self, encoded):
        return Scores(-super().score(encoded).image)


class Given(Detector):
    """A method with one attribute more."""

    def __init__(self, backbone, extra):
        super().__init__(backbone)
        self.extra = extra


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A profile that learns from keys and is tested on bolts, with empty caches and a method of this file."""
    monkeypatch.setattr(units, "UNITS", tmp_path / "units")
    monkeypatch.setattr(methods, "FITTED", tmp_path / "fitted")
    monkeypatch.setattr(Toy, "learned", [])
    monkeypatch.setitem(METHODS, "toy", f"{__name__}.Toy")
    for part, name in (("taught", "key"), ("tested", "bolt")):
        write_category(tmp_path / part / name, name, good=3, bad=2)
    sets = {"development": (str(tmp_path / "taught"),), "seen": (), "test": (str(tmp_path / "tested"),)}
    return profiles.load_profile("mini").model_copy(update=sets | {"bank": "static", "static": False})


def fits(plan, backbone, **options):
    """How often a new detector had to learn."""
    before = len(Toy.learned)
    methods.taught(Toy(backbone, **options), plan)
    return len(Toy.learned) - before


# ---------------------------------------------------------------------------------------------------- teach and refuse


def test_a_method_without_maps_has_image_metrics_only_and_may_decide_and_answer(plan, backbone):
    (bolts,) = datasets.load_split(plan.test)
    table = benchmark.evaluate(plan, backbone, [bolts], [units.Unit("toy"), units.Unit("clip-ac")])
    assert set(table[table.method == "toy"].metric) == {"image_auroc", "image_ap", "image_f1max"}
    assert "pixel_auroc" in set(table[table.method == "clip-ac"].metric) and Toy.learned == [["key"]]
    scores, maps = methods.predict_category(methods.build_detector("toy", plan, backbone).prepare("bolt"), bolts)
    assert scores.shape == (len(bolts.test),) and maps is None


def test_what_teaches_is_refused_before_anything_is_learned(plan, backbone):
    taught = datasets.load_split(plan.development)
    with pytest.raises(ValueError, match="toy learned from key and cannot be scored on it; score other categories"):
        benchmark.evaluate(plan, backbone, taught, [units.Unit("toy")])
    with pytest.raises(ValueError, match="toy learned from key"):
        benchmark.evaluate(plan, backbone, taught, [units.Unit("toy")], {"toy": Toy(backbone)})
    with pytest.raises(ValueError, match="toy learned from key"):
        parallel.evaluate(plan, taught, [units.Unit("toy")])
    assert Toy.learned == []


def test_no_shipped_profile_scores_a_method_on_labels_that_taught_it():
    for name in profiles.profile_names():
        profile = profiles.load_profile(name)
        here = {unit.method for unit in benchmark.on_development(profile)}
        assert set(profile.methods) - here == {"words+self-similarity"}
        assert {unit.method for unit in benchmark.zero_shot(profile)} == set(profile.methods)


def test_a_copy_of_what_teaches_is_refused_as_well(plan, backbone, tmp_path):
    shutil.copytree(tmp_path / "taught" / "key", tmp_path / "copied" / "latchkey")
    copied = datasets.load_split([str(tmp_path / "copied")])
    with pytest.raises(ValueError, match="learned from latchkey and cannot be scored on it"):
        benchmark.evaluate(plan, backbone, copied, [units.Unit("toy")])


def test_a_part_of_what_teaches_is_refused_whatever_it_is_called(plan, backbone, tmp_path):
    """Unlabelled pictures may teach and be scored, but not where they are reported."""
    shutil.copytree(tmp_path / "taught" / "key", tmp_path / "copied" / "latchkey")
    taught = datasets.load_split(plan.development)
    methods.refuse_what_taught(Alfa, plan, taught)
    for name in (f"{tmp_path / 'taught'}:2", str(tmp_path / "copied"), str(tmp_path / "taught" / ".." / "taught")):
        reported = plan.model_copy(update={"test": (*plan.test, name)})
        methods.refuse_what_taught(Alfa, reported, datasets.load_split(plan.test))
        for categories in (taught, datasets.load_split([name])):
            with pytest.raises(ValueError, match="alfa learned from (key|latchkey) and cannot be scored on it"):
                methods.refuse_what_taught(Alfa, reported, categories)


def test_sets_that_share_nothing_by_their_names_are_not_read(plan, tmp_path, monkeypatch):
    mini, bolts = profiles.load_profile("mini"), datasets.load_split(plan.test)
    taught, asked = datasets.load_split(plan.development), []
    monkeypatch.setattr(methods, "load_split", lambda names, *_: asked.append(names) or taught)
    for name in ("mini", "paper", "large"):
        methods.refuse_what_taught(Alfa, profiles.load_profile(name), bolts)
    assert asked == []
    part = mini.model_copy(update={"seen": (), "test": ("miniad-development:400",)})
    with pytest.raises(ValueError, match="alfa learned from key"):
        methods.refuse_what_taught(Alfa, part, taught)
    assert asked == [mini.development, part.test]


# ---------------------------------------------------------------------------------------------- what it learned is kept


def test_what_was_learned_is_found_again_until_something_it_came_from_changes(plan, backbone, tmp_path):
    assert [fits(plan, backbone), fits(plan, backbone)] == [1, 0]
    assert [fits(plan, backbone, strength=2.0), fits(plan, backbone, strength=2.0)] == [
        1,
        0,
    ]  # a setting that nobody named
    good = tmp_path / "taught" / "key" / "train" / "good" / "00.png"
    good.write_bytes(good.with_stem("01").read_bytes())  # ``fit`` may look at normal pictures, too
    assert [fits(plan, backbone), fits(plan, backbone)] == [1, 0]


@pytest.mark.parametrize("damage", ["cut", "empty", "of another method", "of another shape"])
def test_damaged_weights_are_learned_again(damage, plan, backbone):
    from safetensors.torch import save_file

    assert fits(plan, backbone) == 1
    (file,) = methods.FITTED.iterdir()
    shapes = {"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}
    other = {"of another method": {"aligner": torch.zeros(3)}, "of another shape": shapes}
    if damage in other:
        save_file(other[damage], file)
    else:
        file.write_bytes(file.read_bytes()[:-4] if damage == "cut" else b"")
    assert [fits(plan, backbone), fits(plan, backbone)] == [1, 0]


def test_weights_that_are_given_are_taken_and_nothing_is_learned(plan, backbone):
    given = {"weight": torch.full((1, backbone.dim), 3.0), "bias": torch.ones(1)}
    built = methods.build_detector("toy", plan, backbone, weights=given)
    assert all(torch.equal(built.weights()[name], tensor) for name, tensor in given.items())
    assert Toy.learned == [] and not methods.FITTED.exists()
    alfa = methods.build_detector("alfa", plan, backbone, weights={"aligner": torch.ones(3, 2)})
    assert torch.equal(alfa.aligner.matrix, torch.ones(3, 2))  # before the committed one
    for other in ({"aligner": torch.zeros(3)}, {"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}):
        with pytest.raises(ValueError, match="toy cannot take the weights that were given.*leave them out"):
            methods.build_detector("toy", plan, backbone, weights=other)
    assert Toy.learned == [] and methods.build_detector("toy", plan, backbone, weights={}).weights()
    assert Toy.learned == [["key"]]  # nothing was given


# ------------------------------------------------------------------------------------------------------ results are kept


@pytest.mark.parametrize(
    "content",
    ['["metrics", "scores"]', '{"metrics": null, "scores": null}', '{"metrics": {}, "scores": []}', "7", '"metrics scores"',
     '{"metrics": {"image_auroc": "high"}, "scores": [0.5]}', '{"metrics": [0.5], "scores": [0.5]}',
     '{"metrics": {"image_auroc": 0.5}, "scores": {"0": 0.5}}', '{"metrics": {"image_auroc": 0.5}}'],
)  # fmt: skip
def test_a_result_of_another_shape_is_a_missing_result(content, plan, backbone):
    bolts, asked = datasets.load_split(plan.test), [units.Unit("clip-ac")]
    table = benchmark.evaluate(plan, backbone, bolts, asked)
    (file,) = units.UNITS.rglob("*.json")
    before = json.loads(file.read_text())
    file.write_text(content)
    assert units.kept(file) is None
    assert benchmark.evaluate(plan, backbone, bolts, asked).equals(table) and json.loads(file.read_text()) == before


def test_a_unit_is_named_by_settings_that_its_author_did_not_list_and_by_how_masks_are_read(plan, backbone):
    (bolts,) = datasets.load_split(plan.test)
    unit, toy = units.Unit("toy"), Toy(backbone)
    name = units.unit_file(unit, toy, bolts)
    assert (
        name == units.unit_file(unit, Toy(backbone), bolts) != units.unit_file(unit, Toy(backbone, strength=2.0), bolts)
    )
    palette = replace(bolts, test=tuple(replace(sample, palette=True) for sample in bolts.test))
    assert name != units.unit_file(unit, toy, palette)


def test_another_class_of_the_same_module_is_another_method(plan, backbone, monkeypatch):
    bolts, asked = datasets.load_split(plan.test), [units.Unit("toy")]
    first = benchmark.evaluate(plan, backbone, bolts, asked)
    monkeypatch.setitem(METHODS, "toy", f"{__name__}.Contrary")
    second = benchmark.evaluate(plan, backbone, bolts, asked).set_index("metric").value
    auroc = first.set_index("metric").value["image_auroc"]
    assert second["image_auroc"] == pytest.approx(1 - auroc) != auroc
    assert len(Toy.learned) == 2


def test_settings_forget_no_attribute(backbone):
    aligners = [Aligner(torch.full((3, 2), x), "any") for x in (0.0, 1.0)]
    torch.manual_seed(0)
    values = [
        None, 1, "1", (1, 2), [1, 3], [], {"a": 1}, {"a": 2}, {"b": 1}, {1: "a"}, {2: "a"}, {"x", "y"}, {"x"},
        frozenset({"z"}), Path("a/b"), Path("a/c"), np.float32(0.5), np.int64(3), np.bool_(True), np.array([1.0, 2.0]),
        np.array([[1.0, 2.0]]), {"a": {"b": (Path("c"),)}}, {"a": {"b": (Path("d"),)}}, torch.ones(2), torch.zeros(2),
        [torch.ones(2)], torch.nn.Linear(2, 1), torch.nn.Linear(2, 1), *aligners, {1: Memory(torch.ones(1, 1, 2))},
        {1: Memory(torch.eye(2)[None])},
    ]  # fmt: skip
    keys = [provenance.json_hash(Given(backbone, value).settings()) for value in values]
    assert len(set(keys)) == len(values)
    assert Given(backbone, {"a": np.float64(1.5), "b": (2,)}).settings() == {
        "map_size": 192,
        "extra": {"a": 1.5, "b": [2]},
    }
    both = [Given(backbone, {*order}).settings() for order in (range(9), range(8, -1, -1), map(np.int64, range(9)))]
    assert both[0] == both[1] == both[2]
    learned = Aligner(aligners[0].matrix.clone(), "another", {"note": "read from a file"})
    assert Given(backbone, learned).settings() == Given(backbone, aligners[0]).settings()


@pytest.mark.parametrize("value", [object(), len, lambda: 0, b"bytes", 1j, {"a": [object()]}, Toy])
def test_an_attribute_that_no_key_can_hold_is_an_error_that_says_what_to_do(value, plan, backbone):
    (bolts,) = datasets.load_split(plan.test)
    for ask in (
        Given(backbone, value).settings,
        lambda: units.unit_file(units.Unit("it"), Given(backbone, value), bolts),
    ):
        with pytest.raises(TypeError, match=r"'extra' of Given holds something of type .*override settings\(\)"):
            ask()


def test_what_was_learned_now_and_what_was_found_again_make_one_key(plan, backbone):
    (bolts,) = datasets.load_split(plan.test)
    files = [units.unit_file(units.Unit("toy"), methods.build_detector("toy", plan, backbone), bolts) for _ in range(2)]
    assert files[0] == files[1] and Toy.learned == [["key"]]


def test_the_libraries_of_a_method_are_those_that_its_sources_import(tmp_path, monkeypatch):
    (tmp_path / "fancy_method.py").write_text(
        "from zsadlib.detectors import base\n\ndef fit():\n    import sklearn.svm\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"torch", "numpy", "scipy", "safetensors", "pillow"} <= set(provenance.libraries("zsadlib.study.units"))
    assert "scikit-learn" not in provenance.libraries("zsadlib.study.units")
    assert {"scikit-learn", "torch"} <= set(provenance.libraries("fancy_method"))


def test_every_library_of_a_unit_is_in_its_name(plan, backbone, monkeypatch):
    (bolts,) = datasets.load_split(plan.test)
    detector, version = methods.build_detector("clip-ac", plan, backbone), provenance.importlib.metadata.version
    names = {units.unit_file(units.Unit("clip-ac"), detector, bolts)}
    for library in ("torch", "numpy", "scipy"):
        monkeypatch.setattr(
            provenance.importlib.metadata, "version", lambda p, own=library: "99" if p == own else version(p)
        )
        names.add(units.unit_file(units.Unit("clip-ac"), detector, bolts))
    assert len(names) == 4


def test_a_manifest_knows_the_weights_and_all_that_the_package_ships(tmp_path, monkeypatch):
    package = tmp_path / "zsadlib"
    shutil.copytree(chain.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    script, profile = chain.notebook_scripts()[0], profiles.load_profile("mini")
    before = chain.made_of(script, profile)
    monkeypatch.setattr(chain, "PACKAGE", package)
    assert chain.made_of(script, profile) == before
    for file in ("weights/zsad-mini.safetensors", "evaluation/published-results.csv", "files.py"):
        content = (package / file).read_bytes()
        (package / file).write_bytes(content + b"\n")
        assert chain.made_of(script, profile) != before, file
        (package / file).write_bytes(content)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "files.pyc").touch()
    assert chain.made_of(script, profile) == before


def test_one_backbone_serves_profiles_of_two_batch_sizes(plan):
    small, large = (loading.profile_backbone(plan.model_copy(update={"batch_size": n})) for n in (2, 7))
    assert (small.batch_size, large.batch_size, small.model is large.model) == (2, 7, True)
