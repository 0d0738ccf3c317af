"""Controls of a prompt bank, and ambiguity that does not grow with a bank: against slow readings of their definitions."""

import itertools
import os
import random
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from test_prompts import MVTEC

from zsadlib.datasets import miniad
from zsadlib.evaluation import bootstrap
from zsadlib.prompts import ambiguity, banks, controls, llm
from zsadlib.prompts.scoring import PromptEnsemble
from zsadlib.training import captions

# Every object of every set of the study, and of those that may follow.
NAMES = (
    *miniad.CATEGORIES, *MVTEC, "candle", "capsules", "cashew", "chewing gum", "fryum", "macaroni", "pcb",
    "printed circuit board", "pipe fryum", "magnetic tile", "textile", "solar cell", "spring", "padlock", "comb", "dice",
    "clock face", "pencil", "corduroy", "asphalt", "cardboard", "wicker", "egg", "toothed belt",
)  # fmt: skip
BANKS = ("gemma-3-270m", "strong")
SAID = banks.Answers(normal=[f"good {i}" for i in range(21)], abnormal=[f"bad {i}" for i in range(16)])


def both(answers):
    return [*answers.normal, *answers.abnormal]


# ---------------------------------------------------------------------------------------------------------------- controls


@pytest.fixture
def no_bank(monkeypatch):
    """No recorded answer can be read."""

    def refuse(*arguments, **options):
        raise AssertionError("a recorded bank was read")

    for name in ("load_bank", "bank_files"):
        monkeypatch.setattr(controls, name, refuse)
        monkeypatch.setattr(banks, name, refuse)


def test_static_like_is_winclips_sentences_and_every_state_has_its_turn(no_bank):
    states = {"normal": banks.STATIC_NORMAL, "abnormal": banks.STATIC_ABNORMAL}
    for sizes in ((20, 20), (3, 2), (64, 64), (154, 88)):
        made = controls.static_like("hex nut", *sizes, seed=3)
        for side, size in zip(states, sizes, strict=True):
            of = {t.format(s.format("hex nut")): s for s in states[side] for t in banks.TEMPLATES}
            found = [of[f"a {prompt}."] for prompt in getattr(made, side)]
            assert len(found) == len(set(getattr(made, side))) == size
            times = [found.count(state) for state in states[side]]
            assert max(times) - min(times) <= 1
    # A long list is not one template after another: the first sentences of every state come in different templates.
    first = controls.static_like("hex nut", 7, 4, seed=3).normal
    assert len({re.sub("(flawless|perfect|unblemished) | without .*| for visual.*", "", p) for p in first}) > 2
    for sizes in ((155, 4), (4, 89), (-1, 4)):
        with pytest.raises(ValueError, match="static sentences"):
            controls.static_like("hex nut", *sizes)


def test_recombined_says_two_things_of_its_sides_examples(no_bank):
    made = controls.recombined("hex nut", 64, seed=3)
    for side, other in (("normal", "abnormal"), ("abnormal", "normal")):
        own, theirs = (" ; ".join(looks for _, looks in llm.EXAMPLES[s]) for s in (side, other))
        objects = {name for name, _ in llm.EXAMPLES[side]}
        prompts = getattr(made, side)
        assert len(set(prompts)) == len(prompts) == 64
        for prompt in prompts:
            said = prompt.removeprefix("hex nut with ")
            assert said != prompt and not any(f"{name} with" in prompt for name in objects)
            cuts = [m.start() for m in re.finditer(" and ", said)]
            parts = [(said[:cut], said[cut + 5 :]) for cut in cuts]
            assert any(one in own and two in own and one != two for one, two in parts), prompt
            assert not any(one in theirs and two in theirs for one, two in parts), prompt
    with pytest.raises(ValueError, match="normal pairs"):
        controls.recombined("hex nut", 10_000)


def test_a_part_of_an_example_can_stand_alone():
    assert controls._parts("a torn seam and a dirty spot") == ["a torn seam", "a dirty spot"]
    for whole in ("bent and missing bristles", "a broken pane and scratches", "a crack"):
        assert controls._parts(whole) == [whole]


def words(text):
    return set(re.findall(r"[a-z]+", text.lower()))


def test_nonsense_says_nothing_of_a_state_and_its_sides_are_chance(no_bank):
    made = controls.nonsense("hex nut", 64, seed=3)
    everything = {f"{colour} hex nut that {deed}" for colour in controls.COLOURS for deed in controls.DEEDS}
    assert len(set(both(made))) == 128 and set(both(made)) <= everything
    said = words(" ".join([*controls.COLOURS, *controls.DEEDS])) - {"in", "of", "the", "that"}
    states = [*captions.NORMAL, *captions.ABNORMAL, *sum(captions.KINDS.values(), [])]
    states += [
        *banks.STATIC_NORMAL,
        *banks.STATIC_ABNORMAL,
        *(looks for s in llm.SIDES for _, looks in llm.EXAMPLES[s]),
    ]
    names = [*NAMES, *sum(captions.NAMES.values(), []), *captions.ANYTHING]
    assert not said & words(" ".join([*states, *names]))
    normal = Counter(p for seed in range(400) for p in controls.nonsense("hex nut", 36, seed).normal)
    assert (
        len(normal) == len(everything) and 60 < min(normal.values()) and max(normal.values()) < 140
    )  # of 400, expected 100
    with pytest.raises(ValueError, match="nonsense sentences"):
        controls.nonsense("hex nut", 73)


def save(category, normal, abnormal, fallback=()):
    answers = {"normal": normal, "abnormal": abnormal}
    banks.save_bank(banks.Bank(llm="mine", category=category, request={}, answers=answers, fallback=list(fallback)))


def test_prompts_of_other_objects_are_of_other_objects(monkeypatch, tmp_path):
    monkeypatch.setattr(banks, "OWN", tmp_path)
    save("hex nut", ["clean hex nut", "shiny hex nut"], ["bent hex nut"])
    save("metal nuts2", ["metal nut, clean"], ["metal nut, bent"])  # the same head noun
    save("hazelnut", ["shell, clean"], ["shell, bent"])  # ends in it
    save("grass", ["green grass", "grass with Nuts, clean", "grass"], ["grass with a walnut", "burnt grass"])
    save("key", ["key with static words"], ["bent key"], fallback=["normal"])
    made = controls.of_other_objects("mine", "hex nut", seed=3)
    assert set(made.normal) == {"green grass", "grass"} and made.abnormal[0] in {"burnt grass", "bent key"}
    assert {controls.of_other_objects("mine", "hex nut", s).abnormal[0] for s in range(20)} == {
        "burnt grass",
        "bent key",
    }
    ends_in_theirs = {p for s in range(20) for p in both(controls.of_other_objects("mine", "hazelnut", s))}
    assert ends_in_theirs == {
        "green grass",
        "grass with Nuts, clean",
        "grass",
        "grass with a walnut",
        "burnt grass",
        "bent key",
    }
    save("hex nut", ["clean hex nut"] * 3, ["bent hex nut"])
    with pytest.raises(ValueError, match="3 prompts were asked for, but there are 2 normal prompts of other objects"):
        controls.of_other_objects("mine", "hex nut")
    with pytest.raises(ValueError, match="no prompt bank"):
        controls.of_other_objects("mine", "teapot")
    # "grass" is no plural: "glass" does not end in "gras", and what ends in "s" by nature keeps it.
    assert [controls._head(n) for n in ("grass", "capsules", "pcb4", "Hex Nut")] == ["grass", "capsule", "pcb", "nut"]


@pytest.mark.parametrize("bank", BANKS)
def test_no_recorded_answer_of_a_category_is_in_what_others_said(bank):
    files = banks.bank_files(bank).values()
    all_recorded = [banks.Bank.model_validate_json(path.read_text(encoding="utf-8")) for path in files]
    everything = {prompt for recorded in all_recorded for prompt in both(recorded.answers)}
    for recorded in all_recorded:
        made = controls.of_other_objects(bank, recorded.category, seed=1)
        assert not set(both(made)) & set(both(recorded.answers))
        noun = recorded.category.split()[-1].rstrip("0123456789").removesuffix("s")
        assert not [prompt for prompt in both(made) if re.search(rf"\b{noun}s?\b", prompt.lower())]
        assert set(both(made)) <= everything


@pytest.mark.parametrize("name", ["static-like", "recombined", "nonsense"])
def test_a_control_knows_the_size_of_a_bank_and_nothing_of_its_words(name, monkeypatch, tmp_path):
    monkeypatch.setattr(banks, "OWN", tmp_path)
    save("zebra", [f"clean{i}" for i in range(5)], ["burnt", "bent"])
    before = controls.CONTROLS[name]("mine", "zebra", 1)
    save("zebra", [f"other{i}" for i in range(5)], ["torn", "cut"])
    assert controls.CONTROLS[name]("mine", "zebra", 1) == before
    assert not set(both(before)) & {*(f"clean{i}" for i in range(5)), "burnt", "bent"}


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("name", controls.CONTROLS)
def test_every_control_has_the_size_of_the_bank_and_is_as_clean(name, bank):
    for category in ("tile", "bolt"):
        recorded, made = banks.load_bank(bank, category).answers, controls.CONTROLS[name](bank, category, 2)
        assert (len(made.normal), len(made.abnormal)) == (len(recorded.normal), len(recorded.abnormal))
        for side in (made.normal, made.abnormal):
            assert banks.clean(side) == (side, {})
        assert controls.CONTROLS[name](bank, category, 2) == made != controls.CONTROLS[name](bank, category, 3)


def test_the_sizes_of_both_sides_are_kept_apart(monkeypatch, tmp_path):
    monkeypatch.setattr(banks, "OWN", tmp_path)
    save("zebra", [f"clean{i}" for i in range(9)], ["burnt", "bent"])
    save("bolt", [f"bolt{i}" for i in range(9)], ["bolt with rust", "torn bolt"])
    for make in controls.CONTROLS.values():
        made = make("mine", "zebra")
        assert (len(made.normal), len(made.abnormal)) == (9, 2)


def test_draws_are_the_same_in_another_process():
    code = (
        "from zsadlib.prompts import controls\n"
        "print([f('strong', 'bolt', 5).model_dump() for f in controls.CONTROLS.values()])"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == str([f("strong", "bolt", 5).model_dump() for f in controls.CONTROLS.values()])


def test_categories_have_draws_of_their_own():
    for make in (lambda c: controls.static_like(c, 20, 20), lambda c: controls.recombined(c, 20)):
        bolt, gear = make("bolt"), make("gear")
        assert [p.replace("bolt", "gear") for p in both(bolt)] != both(gear)


@pytest.mark.parametrize(
    ("share", "count"), [(0, 0), (0.1, 2), (0.2, 3), (0.3, 5), (0.4, 6), (0.5, 8), (0.03, 0), (1, 16)]
)
def test_a_share_is_swapped_exactly(share, count):
    made = controls.swapped(SAID, share, seed=4)
    assert len(made.normal) == 21 and len(made.abnormal) == 16
    assert sum(p.startswith("bad") for p in made.normal) == count == sum(p.startswith("good") for p in made.abnormal)
    assert sorted(both(made)) == sorted(both(SAID))
    # What stays stays in its place.
    stayed = [i for i, p in enumerate(made.normal) if p.startswith("good")]
    assert [made.normal[i] for i in stayed] == [SAID.normal[i] for i in stayed]


def test_half_of_an_odd_side_is_never_more_than_half():
    for n in (5, 7, 15, 21):
        said = banks.Answers(normal=[f"good {i}" for i in range(n)], abnormal=[f"bad {i}" for i in range(n)])
        assert sum(p.startswith("bad") for p in controls.swapped(said, 0.5).normal) == n // 2


def test_a_larger_share_swaps_the_smaller_one_too():
    over = [
        {p for p in controls.swapped(SAID, share, 4).normal if p.startswith("bad")} for share in (0, *controls.SHARES)
    ]
    assert all(less < more for less, more in itertools.pairwise(over))
    assert controls.swapped(SAID, 0, 4) == SAID
    assert len({tuple(controls.swapped(SAID, 0.3, seed).normal) for seed in range(10)}) > 5
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match="cannot be swapped"):
            controls.swapped(SAID, share)


def test_the_registry_swaps_the_share_that_it_names():
    recorded = banks.load_bank("strong", "bolt").answers
    for share in controls.SHARES:
        made = controls.CONTROLS[f"swapped {round(100 * share)}%"]("strong", "bolt", 1)
        assert made == controls.swapped(recorded, share, 1)


def test_a_subsample_is_a_part_in_order_and_nested():
    small, large = controls.subsample(SAID, 5, 3, seed=2), controls.subsample(SAID, 12, 9, seed=2)
    assert (len(small.normal), len(small.abnormal), len(large.normal), len(large.abnormal)) == (5, 3, 12, 9)
    for side in llm.SIDES:
        of = getattr(SAID, side)
        assert set(getattr(small, side)) < set(getattr(large, side)) < set(of)
        assert sorted(getattr(large, side), key=of.index) == getattr(large, side)
    assert controls.subsample(SAID, 21, 16, 2) == SAID and small != controls.subsample(SAID, 5, 3, seed=3)
    drawn = Counter(p for seed in range(300) for p in controls.subsample(SAID, 7, 4, seed).normal)
    assert len(drawn) == 21 and min(drawn.values()) > 60 and max(drawn.values()) < 140  # of 300, expected 100
    for sizes in ((22, 3), (3, 17)):
        with pytest.raises(ValueError, match="prompts were asked for"):
            controls.subsample(SAID, *sizes)


def test_no_example_of_the_llm_speaks_of_an_object_of_a_data_set():
    """A base model that copies its examples must not be right by it: "brush" would tell it of a toothbrush."""
    heads = {re.sub("s$", "", name.split()[-1]) for name in (*NAMES, "grass", *sum(captions.NAMES.values(), []))}
    for side, examples in llm.EXAMPLES.items():
        for name, looks in examples:
            head = re.sub("s$", "", name.split()[-1])
            assert not [other for other in heads if other.endswith(head) or head.endswith(other)], (side, name)
            said = {re.sub("s$", "", word) for word in words(f"{name} {looks}")}
            assert not said & heads, (side, name, said & heads)
    assert [name for name, _ in llm.EXAMPLES["normal"]] == [name for name, _ in llm.EXAMPLES["abnormal"]]
    assert all(len({looks for _, looks in examples}) == len(examples) == 12 for examples in llm.EXAMPLES.values())


# --------------------------------------------------------------------------------------------------- ambiguity of an image


def normalised(rng, *shape):
    x = torch.from_numpy(rng.standard_normal(shape)).float()
    return x / x.norm(dim=-1, keepdim=True)


def ensemble_of(t_normal, t_abnormal):
    names = [tuple(f"{i}" for i in range(len(t))) for t in (t_normal, t_abnormal)]
    return PromptEnsemble(*names, t_normal, t_abnormal, torch.zeros(16), torch.zeros(16))


@pytest.fixture
def tangled():
    """Images, and a bank whose sides share two sentences: prompts of either side lie before and behind the other's."""
    rng = np.random.default_rng(5)
    image, t_normal, t_abnormal = normalised(rng, 40, 16), normalised(rng, 9, 16), normalised(rng, 7, 16)
    t_abnormal[2], t_abnormal[5] = t_normal[4], t_normal[8]
    return image, ensemble_of(t_normal, t_abnormal)


def slow_auroc(image, ensemble):
    """scikit-learn's AUROC, image by image, of similarities in whole millionths."""
    t = torch.cat([ensemble.t_normal, ensemble.t_abnormal]).double()
    sides = [0] * len(ensemble.t_normal) + [1] * len(ensemble.t_abnormal)
    return np.array([roc_auc_score(sides, [round(float(one.double() @ p), 6) for p in t]) for one in image])


def test_the_auroc_of_prompts_is_the_auroc_of_their_similarities(tangled):
    found = ambiguity.prompt_auroc(*tangled)
    assert found.shape == (40,) and found.min() < 0.3 and found.max() > 0.7
    np.testing.assert_allclose(found, slow_auroc(*tangled), atol=1e-6)


def test_the_same_sentences_on_both_sides_say_nothing():
    rng = np.random.default_rng(6)
    t, image = normalised(rng, 37, 384), normalised(rng, 50, 384)
    assert (ambiguity.prompt_auroc(image, ensemble_of(t, t.flip(0).clone())) == 0.5).all()
    assert (ambiguity.image_ambiguity(image, ensemble_of(t, t)) == 1).all()
    # The two similarities of one sentence may differ by rounding, which must not decide.
    assert (ambiguity.prompt_auroc(image, ensemble_of(t, t * (1 + 5e-7))) == 0.5).all()


def test_copies_of_all_prompts_change_nothing(tangled):
    image, ensemble = tangled
    more = ensemble_of(ensemble.t_normal.repeat(3, 1), ensemble.t_abnormal.repeat(5, 1))
    for measure in (ambiguity.prompt_auroc, ambiguity.image_ambiguity):
        np.testing.assert_allclose(measure(image, more), measure(image, ensemble), atol=1e-6)


def test_more_prompts_of_the_same_kind_widen_the_overlap_but_not_the_confusion():
    rng = np.random.default_rng(7)
    image, center, labels = normalised(rng, 60, 16), normalised(rng, 1, 16), np.arange(60) % 2
    overlap, confusion = {}, {}
    for size in (8, 64):
        sampled = [
            ensemble_of(normalised(rng, size, 16) - 0.2 * center, normalised(rng, size, 16) + 0.2 * center)
            for _ in range(40)
        ]
        overlap[size] = np.mean([ambiguity.overlap_rate(image, e) for e in sampled])
        confusion[size] = np.mean([ambiguity.side_confusion(image, e, labels).mean() for e in sampled])
    assert overlap[64] - overlap[8] > 0.1 and abs(confusion[64] - confusion[8]) < 0.015


def test_confusion_is_a_pair_ordered_against_the_label(tangled):
    image, ensemble = tangled
    labels = np.arange(len(image)) % 3 == 0
    for i, found in enumerate(ambiguity.side_confusion(image, ensemble, labels)):
        pairs = [
            (round(float(image[i].double() @ n.double()), 6), round(float(image[i].double() @ a.double()), 6))
            for n in ensemble.t_normal
            for a in ensemble.t_abnormal
        ]
        against = [(n > a if labels[i] else a > n) + 0.5 * (a == n) for n, a in pairs]
        assert float(found) == pytest.approx(np.mean(against), abs=1e-6)
    axis = torch.eye(16)
    clear = ensemble_of(axis[:3], axis[3:5])
    shown = torch.stack([axis[:3].sum(0), axis[3:5].sum(0)])
    assert ambiguity.side_confusion(shown, clear, [0, 1]).tolist() == [0, 0]
    assert ambiguity.side_confusion(shown, clear, [1, 0]).tolist() == [1, 1]
    assert ambiguity.image_ambiguity(shown, clear).tolist() == [0, 0]


def test_doubt_is_twice_the_smaller_chance_and_does_not_know_the_sides(tangled):
    image, ensemble = tangled
    p = slow_auroc(image, ensemble)
    np.testing.assert_allclose(ambiguity.image_ambiguity(image, ensemble), 2 * np.minimum(p, 1 - p), atol=1e-6)
    turned = ensemble_of(ensemble.t_abnormal, ensemble.t_normal)
    np.testing.assert_allclose(ambiguity.prompt_auroc(image, turned), 1 - p, atol=1e-6)
    np.testing.assert_allclose(
        ambiguity.image_ambiguity(image, turned), ambiguity.image_ambiguity(image, ensemble), atol=1e-6
    )


def test_draws_of_the_mean_are_means_of_the_drawn_images(tangled):
    image, ensemble = tangled
    labels = np.arange(len(image)) % 3 == 0
    draws = ambiguity.confusion_draws(image, ensemble, labels, "bolt", 5)
    single = ambiguity.side_confusion(image, ensemble, labels).double().numpy()
    for draw, drawn in zip(draws, bootstrap.counts(labels, "bolt", 5), strict=True):
        rows = [i for i, times in enumerate(drawn) for _ in range(times)]
        means = [np.mean([single[i] for i in rows if labels[i] == side]) for side in (False, True)]
        assert draw == pytest.approx(sum(means) / 2)
    with pytest.raises(ValueError, match="of one class"):
        ambiguity.confusion_draws(image, ensemble, labels | True, "bolt")


def test_a_bank_that_always_says_abnormal_is_half_confused_whatever_the_labels():
    axis = torch.eye(16)
    image, always = axis[0].expand(30, -1), ensemble_of(axis[1:3], axis[:1])
    for bad in (3, 15, 27):
        assert ambiguity.confusion_draws(image, always, np.arange(30) < bad, "bolt", 20)[0] == 0.5


# ------------------------------------------------------------------------------------------------ does it predict errors?


def verdicts(kind, seed=0, images=900):
    """Verdicts of three categories whose errors are planted: by distance alone, by its curve, by ambiguity, by the side."""
    rng = np.random.default_rng(seed)
    category = np.repeat(["bolt", "gear", "leaf"], images // 3)
    threshold = np.repeat([0.5, 0.3, 0.6], images // 3)
    signed = rng.normal(0, 2, images)
    distance, noise = np.abs(signed), rng.random(images)
    doubt = {
        "curve": np.exp(-2 * distance),
        "side": (signed > 0) + 0.1 * noise,
        "category": (category == "gear") + noise,
    }
    doubt = doubt.get(kind, noise)
    odds = {
        "distance": -0.3 - distance,
        "curve": -3 + 4 * np.exp(-2 * distance),
        "ambiguity": -1.5 - distance + 4 * (noise - 0.5),
        "side": -1.5 - 0.5 * distance + 1.5 * (signed > 0),
        "category": -1.5 - 0.5 * distance + 2 * (category == "gear"),
    }[kind]
    wrong = rng.random(images) < expit(odds)
    return pd.DataFrame(
        {
            "category": category, "label": ((signed >= 0) != wrong).astype(int), "score": expit(signed + logit(threshold)),
            "threshold": threshold, "ambiguity": doubt,
        }
    )  # fmt: skip


def test_a_planted_effect_is_found_over_both_bases():
    found = ambiguity.predicts_errors(verdicts("ambiguity"), 60).set_index("base")
    assert list(found.index) == ["distance", "score"]
    deviation = verdicts("ambiguity").ambiguity.std(ddof=0)
    for row in found.itertuples():
        assert row.low > 0.5 and abs(row.coefficient - 4 * deviation) < 0.35
        assert row.gain > 0.02 and row.gain_low > 0 and row.auroc_with > row.auroc + 0.03


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_is_not_found(seed):
    for row in ambiguity.predicts_errors(verdicts("distance", seed), 60).itertuples():
        assert row.low < 0 < row.high and row.gain < 0.002 and abs(row.auroc_with - row.auroc) < 0.02


@pytest.mark.parametrize("kind", ["curve", "side", "category"])
def test_what_the_score_or_the_category_says_is_not_taken_for_ambiguity(kind):
    """The straight line in the distance is fooled by all three; the base that knows the whole score is not."""
    found = ambiguity.predicts_errors(verdicts(kind), 60).set_index("base")
    assert found.low["distance"] > 0 and found.gain_low["distance"] > 0
    assert found.low["score"] < 0 < found.high["score"] and found.gain["score"] < 0.002


def slow_fit(columns, wrong, weights):
    """Coefficients of a ridge logistic regression by a general optimiser, the intercept first."""
    design, signs = np.column_stack([np.ones(len(wrong)), columns]), 2 * wrong - 1

    def cost(b):
        margins = signs * (design @ b)
        slopes = -(weights * signs * expit(-margins)) @ design
        return weights @ np.logaddexp(0, -margins) + b[1:] @ b[1:] / 200, slopes + np.r_[0, b[1:]] / 100

    return minimize(cost, np.zeros(design.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-6}).x


def test_the_regression_is_what_it_says():
    table = verdicts("ambiguity", images=300)
    signed = np.log(table.score / (1 - table.score)) - np.log(table.threshold / (1 - table.threshold))
    wrong = np.array([(s >= t) != bool(y) for s, t, y in zip(table.score, table.threshold, table.label, strict=True)])
    base = np.abs(signed).to_numpy()
    base, doubt = ((x - np.mean(x)) / np.std(x) for x in (base, table.ambiguity.to_numpy()))
    full, ones = np.column_stack([base, doubt]), np.ones(300)
    found = ambiguity.predicts_errors(table, 4, seed=9).iloc[0]
    assert (found.images, found.wrong) == (300, wrong.sum())
    assert found.coefficient == pytest.approx(slow_fit(full, wrong, ones)[2], abs=2e-3)
    # The same resamples as of any other draw of these categories, image by image.
    counts = [bootstrap.counts(table.label[table.category == c], c, 4) for c in ("bolt", "gear", "leaf")]
    drawn = np.hstack(counts)
    fitted = []
    for one in drawn[1:]:
        rows = [i for i, times in enumerate(one) for _ in range(times)]
        fitted.append(slow_fit(full[rows], wrong[rows], ones)[2])
    assert [found.low, found.high] == pytest.approx(np.quantile(fitted, [0.025, 0.975]), abs=3e-3)
    # Cross-validation, fold by fold.
    chance = np.zeros((2, 300))
    for train, test in StratifiedKFold(5, shuffle=True, random_state=9).split(base, wrong):
        for row, columns in zip(chance, (base[:, None], full), strict=True):
            b = slow_fit(columns[train], wrong[train], np.ones(len(train)))
            row[test] = expit(b[0] + columns[test] @ b[1:])
    loss = -np.log(np.where(wrong, chance, 1 - chance))
    assert found.log_loss == pytest.approx(loss[0].mean(), abs=1e-4)
    assert found.gain == pytest.approx((loss[0] - loss[1]).mean(), abs=2e-4)
    gains = [(one * (loss[0] - loss[1])).sum() / 300 for one in drawn[1:]]
    assert [found.gain_low, found.gain_high] == pytest.approx(np.quantile(gains, [0.025, 0.975]), abs=2e-4)
    assert found.auroc == pytest.approx(roc_auc_score(wrong, chance[0]), abs=2e-3)
    assert found.auroc_with == pytest.approx(roc_auc_score(wrong, chance[1]), abs=2e-3)


def test_neither_the_order_of_images_nor_the_unit_of_ambiguity_matters_to_the_coefficient():
    table = verdicts("ambiguity", images=300)
    first = ambiguity.predicts_errors(table, 2)
    order = random.Random(1).sample(range(300), 300)
    scaled = table.iloc[order].assign(ambiguity=lambda t: 5 - 3 * t.ambiguity)
    np.testing.assert_allclose(ambiguity.predicts_errors(scaled, 2).coefficient, -first.coefficient, atol=2e-3)


def test_an_ambiguity_that_the_score_decides_has_no_share_in_what_the_score_says():
    table = verdicts("distance", images=300)
    distance = np.abs(logit(table.score) - logit(table.threshold))
    found = ambiguity.predicts_errors(table.assign(ambiguity=1 - distance / 9), 3)
    assert found[["coefficient", "low", "high", "gain"]].abs().max(axis=None) < 1e-6


def test_nothing_is_made_of_too_few_errors():
    table = verdicts("distance", images=300)
    table["label"] = (table.score >= table.threshold).astype(int)
    whole = ambiguity.predicts_errors(verdicts("distance", images=300), 3)
    for wrong, label in ((0, table.label), (300, 1 - table.label)):
        found = ambiguity.predicts_errors(table.assign(label=label))
        assert list(found) == list(whole) and set(found.wrong) == {wrong} and list(found.base) == list(whole.base)
        assert found.drop(columns=["base", "images", "wrong"]).isna().all(axis=None)


def test_a_score_of_zero_or_one_and_a_constant_ambiguity_are_no_accident():
    table = verdicts("distance", images=300)
    table.loc[table.score < 0.05, "score"], table.loc[table.score > 0.95, "score"] = 0.0, 1.0
    found = ambiguity.predicts_errors(table.assign(ambiguity=0.7), 3)
    assert np.isfinite(found.drop(columns="base").to_numpy(float)).all() and found.coefficient.abs().max() < 1e-9
