"""The embedded model's training: what it may see, and that a stopped run continues as if it had not been stopped."""

import inspect
import json
import re

import jupytext
import nbformat
import numpy as np
import papermill
import pytest
import torch
from conftest import stop_at_call
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F

from zsadlib.datasets import miniad
from zsadlib.datasets.miniad import materials
from zsadlib.files import ROOT
from zsadlib.models import embedded
from zsadlib.provenance import sources
from zsadlib.training import captions, features, losses, optimisation, pictures, recipe

A1 = ROOT / "notebooks" / "appendix" / "A1_train_the_embedded_model.py"


@pytest.fixture(scope="module")
def photographs():
    """The photographs of materials, which the drawing of training pictures downloads once."""
    try:
        return materials.folder()
    except OSError as error:
        pytest.skip(f"no network and no copy of the materials: {error}")


@pytest.fixture
def few_captions(monkeypatch):
    monkeypatch.setattr(captions, "NAMES", {name: names[:1] for name, names in captions.NAMES.items()})
    monkeypatch.setattr(captions, "KINDS", {kind: phrases[:1] for kind, phrases in captions.KINDS.items()})
    for side in ("NORMAL", "ABNORMAL", "ANYTHING"):
        monkeypatch.setattr(captions, side, getattr(captions, side)[:1])


def _names(split):
    return set(miniad.split_names(split))


def test_the_weights_were_trained_on_training_categories_only():
    with safe_open(embedded.WEIGHTS, "pt") as file:
        seen = set(json.loads(file.metadata()["trained_on"]))
    assert seen == _names("training") and not seen & (_names("development") | _names("seen_test"))
    assert set(captions.NAMES) == seen
    spoken = {name for names in captions.NAMES.values() for name in names} | set(captions.ANYTHING)
    assert not spoken & (_names("development") | _names("seen_test"))


def test_nothing_of_another_split_is_reached_from_what_draws_training_pictures():
    here = "zsadlib.datasets.miniad"
    for module in (f"{here}.training", "zsadlib.training.pictures"):
        found = set(sources(module))
        assert f"{here}.drawing" in found and not found & {f"{here}.development", f"{here}.seen_test"}
    for split in ("development", "seen_test"):
        assert not set(sources(f"{here}.{split}")) & {f"{here}.{other}" for other in miniad.SPLITS if other != split}
        assert {draw.__module__ for draw in miniad.SPLITS[split]} == {f"{here}.{split}"}
    assert not [n for n in materials.NAMES if any(word in n for word in _names("development") | _names("seen_test"))]


def test_the_weights_are_small_enough():
    assert sum(p.stat().st_size for p in embedded.WEIGHTS.parent.glob("*.safetensors")) < 20e6
    vision = {k: v for k, v in load_file(embedded.WEIGHTS).items() if k.startswith("visual.")}
    assert vision and all(v.dtype == torch.float16 for v in vision.values())


def test_masks_do_not_enter_the_loss():
    arguments = inspect.signature(losses.contrastive_loss).parameters
    assert set(arguments) == {"image", "text", "scale", "labels", "states"}
    assert set(inspect.signature(losses.tile_loss).parameters) == {"lean", "damaged"}
    generator = torch.Generator().manual_seed(0)
    text = F.normalize(
        torch.randn(2 * 4, 8, generator=generator), dim=-1
    )  # an object and "object"; good, a, b, damaged
    labels = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 2]])

    def loss(image):
        return float(losses.contrastive_loss(F.normalize(image, dim=-1), text, 10.0, labels, 4))

    right, wrong = text[[0, 0, 1, 2]], text[[1, 3, 0, 4]]
    assert loss(right) < loss(torch.randn(4, 8, generator=generator)) and loss(right) < loss(wrong)


def test_crops_are_windows_of_the_grid_that_do_not_overlap():
    grid, rng = embedded.GRID, np.random.default_rng(0)
    tokens = torch.arange(1 + grid**2).float()[None, :, None]  # the class token is 0, patch i is i + 1
    for k in recipe.CROPS:
        crops = losses.tiles(tokens, k, rng)[0, :, :, 0].long()
        assert crops.shape == ((grid // k) ** 2, 1 + k * k) and (crops[:, 0] == 0).all()
        places = crops[:, 1:] - 1
        assert places.flatten().unique().numel() == places.numel()  # no patch is in two crops
        rows, columns = places // grid, places % grid
        assert (rows.amax(1) - rows.amin(1) == k - 1).all() and (columns.amax(1) - columns.amin(1) == k - 1).all()


def test_one_damaged_crop_is_enough_and_no_crop_of_an_intact_photograph_may_be():
    damaged, lean = torch.tensor([False, True]), torch.full((2, 4), -5.0)
    lean[1, 2] = 5.0
    right = losses.tile_loss(lean, damaged)
    assert right < 0.02 and losses.tile_loss(lean.roll(1, 1), damaged) == right  # it does not matter which
    assert losses.tile_loss(lean.flip(0), damaged) > 1


def test_the_training_set_holds_pictures_and_names_but_no_masks(photographs):
    images, labels = pictures.draw_group(0, 3)
    assert [image.shape for image in images] == [(embedded.IMAGE_SIZE, embedded.IMAGE_SIZE, 3)] * pictures.GROUP
    assert np.shape(labels) == (pictures.GROUP, 2) and [bool(state) for _, state in labels] == [
        False,
        False,
        True,
        True,
    ]
    assert not [part for part in features.PARTS if "mask" in part]


def test_a_stopped_run_continues_as_if_it_had_not_been_stopped(tmp_path, photographs, few_captions, monkeypatch):
    settings = {"groups": 6, "steps": 2, "finish": 2, "batch": 8, "every": 1}
    whole = recipe.train(tmp_path / "whole", tmp_path / "whole.safetensors", **settings)
    calls = stop_at_call(monkeypatch, recipe, "contrastive_loss", 3)
    with pytest.raises(KeyboardInterrupt):
        recipe.train(tmp_path / "parts", tmp_path / "parts.safetensors", **settings)
    assert not (tmp_path / "parts.safetensors").exists()
    resumed = recipe.train(tmp_path / "parts", tmp_path / "parts.safetensors", **settings)
    assert len(calls) == 5 and resumed.step.tolist() == [1, 2, 3, 4]  # two steps before the stop, two after
    assert np.allclose(resumed.loss, whole.loss, rtol=1e-3)
    a, b = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "parts"))
    assert all(torch.allclose(a[k].float(), b[k].float(), atol=2e-3, rtol=1e-2) for k in a)
    assert (
        recipe.train(tmp_path / "parts", tmp_path / "parts.safetensors", **settings).loss.tolist()
        == resumed.loss.tolist()
    )
    assert len(calls) == 5  # a finished run trains no further


def test_the_training_notebook_runs(tmp_path, photographs):
    jupytext.write(jupytext.read(A1), tmp_path / "A1.ipynb")
    small = {"work": str(tmp_path / "work"), "groups": 4, "steps": 1, "finish": 1, "batch": 8, "limit": 3}
    papermill.execute_notebook(tmp_path / "A1.ipynb", tmp_path / "out.ipynb", small, progress_bar=False)
    assert (tmp_path / "work" / embedded.WEIGHTS.name).is_file()


def test_the_committed_training_notebook_is_the_run_of_the_committed_weights():
    notebook = nbformat.read(A1.with_suffix(".ipynb"), 4)
    assert [c.source for c in notebook.cells] == [c.source for c in jupytext.read(A1).cells]
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    size = embedded.WEIGHTS.stat().st_size / 1e6
    assert f"{recipe.STEPS + recipe.FINISH} steps, weights of {size:.1f} MB" in printed


def test_how_the_specialist_was_trained_is_told_in_the_same_words_everywhere():
    (words,) = [p for p in embedded.__doc__.split("\n\n") if p.startswith("The specialist w")]
    places = [ROOT / "README.md", embedded.FOLDER / "MODEL_CARD.md", A1]
    for place in places:
        told = " ".join(re.sub(r"^# ", "", place.read_text(), flags=re.M).split())
        assert " ".join(words.split()) in told, place


def test_every_trained_parameter_has_one_optimiser_and_matrices_have_muon_where_it_has_a_rate():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    (adam,) = optimisation.make_optimizers(model, 1e-3)
    assert sum(len(group["params"]) for group in adam.param_groups) == 3
    adam, muon = optimisation.make_optimizers(model, 1e-3, 2e-2)
    assert [p.shape for group in muon.param_groups for p in group["params"]] == [(2, 4)]
    assert sum(len(group["params"]) for group in adam.param_groups) == 2
    optimisation.update(model, [adam, muon], model(torch.ones(1, 3, 1, 1)).sum(), 0.5)
    assert {group["lr"] for group in adam.param_groups} == {5e-4} and muon.param_groups[0]["lr"] == 1e-2


def test_the_rate_rises_then_falls_and_the_finish_starts_at_a_third():
    shares = [optimisation.rate_share(step, 400, 100) for step in range(500)]
    assert shares[0] < 0.03 and max(shares) == max(shares[45:60]) and shares[399] < 0.002
    assert 0.3 < max(shares[400:]) < 0.34 and shares[499] < 0.002


def test_oddness_is_the_distance_to_the_most_similar_places_that_do_not_touch():
    features = torch.randn(2, sum(embedded.LEVELS), 6, 6, generator=torch.Generator().manual_seed(1))
    found = embedded.oddness(features).numpy()
    assert found.shape == (2, len(embedded.LEVELS) * len(embedded.NEIGHBOURS), 6, 6)
    level = features[1, 96:136].numpy()  # the second level
    for row, column in ((0, 0), (2, 3), (5, 1)):
        here = level[:, row, column]
        others = [
            here @ level[:, r, c] / np.linalg.norm(here) / np.linalg.norm(level[:, r, c])
            for r in range(6)
            for c in range(6)
            if max(abs(r - row), abs(c - column)) > 1
        ]
        for i, k in enumerate(embedded.NEIGHBOURS):
            expected = 1 - np.mean(sorted(others)[-k:])
            assert found[1, len(embedded.NEIGHBOURS) + i, row, column] == pytest.approx(expected, abs=1e-5)


def test_a_repeated_pattern_is_ordinary_and_the_one_place_that_differs_is_odd():
    features = torch.randn(1, sum(embedded.LEVELS), 1, 1, generator=torch.Generator().manual_seed(2)).repeat(1, 1, 9, 9)
    features[..., 4, 4] *= -1
    odd = embedded.oddness(features)[0]
    assert (odd[:, 4, 4] > 1.9).all() and (odd.flatten(1).median(1).values < 1e-5).all()


def test_the_class_token_collects_the_largest_answer_of_any_patch():
    torch.manual_seed(0)
    block = embedded.GatheringBlock(12, 3).eval()
    tokens = torch.randn(2, 8, 12)
    with torch.no_grad():
        plain = super(embedded.GatheringBlock, block).forward(tokens)
        given = block(tokens)
        answers = torch.stack([block.ask(plain[:, i]) for i in range(1, 8)]).max(0).values
        assert torch.equal(given[:, 1:], plain[:, 1:])
        assert torch.allclose(given[:, 0], plain[:, 0] + block.tell(answers), atol=1e-6)
