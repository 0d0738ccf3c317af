# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 9 · Controls: what else could explain these numbers?
#
# **Question.** Is it the words, the LLM and the choice of prompts that find anomalies, or would something simpler do as well?
#
# A good number proves little until a simpler explanation has been tried. Four are tried here: no words at all, sentences
# that owe nothing to an LLM, ambiguity that costs nothing, and reasons that are all the same.

# %% tags=["parameters"]
profile = "mini"
llm = "gemma-3-270m"
draws = 3  # of each control's sentences
category = "tomato"  # whose reasons are shown; a development category
limit = 0  # images per category (0: all)

# %%
import numpy as np
import pandas as pd

from zsadlib import datasets, profiles, prompts, study
from zsadlib.evaluation import bootstrap, paired, plots
from zsadlib.prompts import ambiguity, controls, scoring

plots.use_style()
settings, results = profiles.load_profile(profile), study.results_folder(profile)
backbone = study.profile_backbone(settings)
splits = datasets.load_splits(settings, limit)
split_of = {c.name: split for split, some in splits.items() for c in some}

# %% [markdown]
# ## Control 1: no words
#
# `self-similarity` reads no sentence: a place is odd where the rest of its own picture holds nothing like it (notebook 5). What
# do words add to it, category by category? Those where they add nothing come first.

# %%
units = [unit for unit in study.zero_shot(settings) if unit.method in ("self-similarity", "alfa")]
categories = [c for some in splits.values() for c in some]
scores = study.image_scores(settings, backbone, categories, units)
drawn = {
    (name, method): bootstrap.image_draws(part.label, part.image_score, name)
    for (name, method), part in scores.groupby(["category", "method"], sort=False)
}

# %%
rows = []
for c in categories:
    gain = bootstrap.difference(drawn[c.name, "self-similarity"][None], drawn[c.name, "alfa"][None])
    alone = drawn[c.name, "self-similarity"][0]
    rows.append({"split": split_of[c.name], "category": c.name, "self-similarity": alone} | gain)
words = pd.DataFrame(rows).sort_values("gain").assign(name=lambda t: t.category + " (" + t.split + ")")
study.save_table(words.drop(columns="name"), results, "controls_words")
figure = plots.gains(words, "name", "what alfa gains over self-similarity, image AUROC (points)")
plots.save(figure, results, "controls_words")

# %% [markdown]
# ## Control 2: does the LLM matter?
#
# The LLM's bank against sentences in its form and number that owe it nothing:
#
# - *static-like*: as many static prompts, WinCLIP's states in WinCLIP's templates;
# - *recombined*: the LLM's few-shot examples, cut up and put onto the object without any LLM (it has seen nothing of these
#   objects: no example names one);
# - *of other objects*: what the LLM said of all the others;
# - *nonsense*: "purple bolt that sings", on both sides;
# - *swapped*: the LLM's own prompts, a share of them on the wrong side.
#
# All prompts count the same (`mean`), so nothing repairs a control.

# %%
asked = [c for c in categories if prompts.is_recorded(llm, c.noun) and c.has_masks]
image = {c.name: study.encode_category(backbone, c).image for c in asked}
assert asked, f"no category has recorded prompts of {llm}; choose another llm"
said = {c.name: prompts.load_bank(llm, c.noun).answers for c in asked}


# %%
def auroc_draws(c, answers):
    """Bootstrap draws of the image AUROC of one category with these sentences."""
    text = scoring.adapt(image[c.name], scoring.join_answers(backbone, c.noun, [answers]))
    return bootstrap.image_draws(c.labels, scoring.anomaly_score(image[c.name], *text).numpy(), c.name)


# %%
of_llm = {c.name: auroc_draws(c, said[c.name]) for c in asked}
of_controls = {
    (control, c.name): np.mean([auroc_draws(c, make(llm, c.noun, seed)) for seed in range(draws)], 0)
    for control, make in controls.CONTROLS.items()
    for c in asked
}

# %%
rows = []
for split in dict.fromkeys(split_of[c.name] for c in asked):
    names = [c.name for c in asked if split_of[c.name] == split]
    base = np.stack([of_llm[name] for name in names])
    for control in controls.CONTROLS:
        other = np.stack([of_controls[control, name] for name in names])
        key = {"split": split, "control": control, "llm": base[:, 0].mean(), "value": other[:, 0].mean()}
        rows.append(key | bootstrap.difference(base, other))
against = pd.DataFrame(rows)
study.save_table(against, results, "controls_llm")
against.set_index(["split", "control"])[["llm", "value", "gain", "low", "high"]].mul(100).round(1)

# %%
figure = plots.dots(
    against.drop(columns="value").rename(columns={"gain": "value"}), "control", "split",
    f"image AUROC against the bank of {llm} (points)", at=0,
)  # fmt: skip
plots.save(figure, results, "controls_llm")

# %% [markdown]
# Left of the line, the LLM's bank is better than the control.
#
# ## Control 3: does ambiguity cost anything?
#
# Notebook 2 measures how much a bank confuses the model. Banks of different size must not be compared, so each is cut to the
# size of the smallest.

# %%
banks = [bank for bank in prompts.bank_names() if all(prompts.is_recorded(bank, c.noun) for c in asked)]
answers = {bank: {c.name: prompts.load_bank(bank, c.noun).answers for c in asked} for bank in banks if bank != "static"}
answers["static-like"] = {c.name: controls.CONTROLS["static-like"](llm, c.noun) for c in asked}
size = {
    c.name: [min(len(getattr(bank[c.name], side)) for bank in answers.values()) for side in ("normal", "abnormal")]
    for c in asked
}
matched = {
    bank: {c.name: controls.subsample(some[c.name], *size[c.name]) for c in asked} for bank, some in answers.items()
}

# %%
confused, rows = [], []
for bank, some in matched.items():
    for c in asked:
        ensemble = scoring.join_answers(backbone, c.noun, [some[c.name]])
        pairs = ambiguity.mean_confusion(image[c.name], ensemble, c.labels, c.name)
        confused.append({"bank": bank, "category": c.name, "split": split_of[c.name]} | pairs)
        text = scoring.adapt(image[c.name], ensemble)
        values = scoring.anomaly_score(image[c.name], *text).numpy()
        key = {"bank": bank, "category": c.name, "threshold": 0.5, "label": c.labels, "score": values}
        rows.append(pd.DataFrame(key | {"ambiguity": ambiguity.image_ambiguity(image[c.name], ensemble)}))
verdicts, confused = pd.concat(rows, ignore_index=True), pd.DataFrame(confused)
study.save_table(confused, results, "controls_confusion")

# %%
shown = confused.rename(columns={"confusion": "value"})
figure = plots.dots(shown, "category", "bank", "random pairs ordered against the truth (%)", at=0.5)
plots.save(figure, results, "controls_confusion")

# %% [markdown]
# Is an *ambiguous image*, for which the prompts of the two sides do not agree, judged wrongly more often? A score near the
# threshold says as much. So the question is what ambiguity tells beyond the score: by how much does it lower the loss of
# a logistic regression that predicts wrong verdicts, first beside the score's distance to the threshold, then beside all that
# score and category can say? The verdict here is `half`: abnormal from 0.5.

# %%
parts = [ambiguity.predicts_errors(part).assign(bank=bank) for bank, part in verdicts.groupby("bank", sort=False)]
errors = pd.concat(parts, ignore_index=True)
study.save_table(errors, results, "controls_errors")
errors.set_index(["bank", "base"]).round(3)

# %%
figure = plots.dots(
    errors.rename(columns={"gain_low": "low", "gain_high": "high", "low": "_", "high": "__", "gain": "value"}), "bank", "base",
    "loss that ambiguity saves (hundredths of a nat per image)", at=0,
)  # fmt: skip
plots.save(figure, results, "controls_errors")

# %% [markdown]
# ## Control 4: is a reason more than the verdict?
#
# Notebook 8 gives each of the heaviest prompts a map of its own. If these maps say *where this sentence* sees something, they
# must differ from the map of the whole side. For every defective picture: the correlation over places of the heaviest
# prompt's map, of a *random* prompt's of the same side, and of the map of the whole side.

# %%
detector = study.build_detector("alfa", settings, backbone)


def own_maps(c, picked):
    """Patch scores (images, places) of one abnormal prompt for each image, and of the whole side."""
    encoded = study.encode_category(backbone, c)
    text, places = scoring.adapt(encoded.image, detector.ensemble, settings.reading), detector.place(encoded.patches)
    own = detector.ensemble.t_abnormal[picked(encoded.image)]
    return scoring.anomaly_score(places, text[0], own).numpy(), scoring.anomaly_score(places, *text).numpy()


# %%
heaviest = lambda image: scoring.READINGS[settings.reading](image, detector.ensemble)[1].argmax(1)  # noqa: E731
anyone = lambda image: np.random.default_rng(0).integers(len(detector.ensemble.abnormal), size=len(image))  # noqa: E731
rows = []
for c in [c for c in categories if c.has_masks]:
    detector.prepare(c.noun)
    for name, picked in (("heaviest prompt", heaviest), ("any prompt of the side", anyone)):
        maps = zip(*own_maps(c, picked), c.labels, strict=True)
        alike = [np.corrcoef(own, side)[0, 1] for own, side, label in maps if label]
        rows += [{"split": split_of[c.name], "category": c.name, "map": name, "correlation": r} for r in alike]
alike = pd.DataFrame(rows)
reasons = alike.groupby(["split", "map"], sort=False).correlation.quantile([0.05, 0.5, 0.95]).unstack()
reasons = reasons.set_axis(["low", "median", "high"], axis=1).reset_index()
study.save_table(reasons, results, "controls_reasons")
reasons.round(3)

# %%
figure = plots.dots(
    reasons.rename(columns={"median": "value"}), "map", "split",
    "correlation with the side's map (%): median, and from the 5th to the 95th percentile of images",
)  # fmt: skip
plots.save(figure, results, "controls_reasons")

# %% [markdown]
# ## What we learn
#
# These sentences are made from the numbers of this run; points are of image AUROC.

# %%
outcomes = [paired.outcome(row.low, row.high) for row in words.itertuples()]
count = {said_: outcomes.count(said_) for said_ in ("helps", "no difference seen", "hurts")}
print("words over self-similarity, by category: " + ", ".join(f"{name} in {n}" for name, n in count.items()))
for row in against.itertuples():
    print(paired.sentence(f"{row.split}: {row.control} instead of the bank of {llm}", row._asdict()))

# %%
order = confused.groupby("bank").confusion.mean().sort_values()
print(
    "random pairs against the truth, equal sizes: " + ", ".join(f"{bank} {value:.0%}" for bank, value in order.items())
)
for row in errors.itertuples():
    more = {"helps": "tells more", "hurts": "misleads", "no difference seen": "tells nothing more that is seen"}
    said_ = more[paired.outcome(row.gain_low, row.gain_high)]
    print(f"{row.bank}: beside the {row.base}, ambiguity {said_} of {row.wrong} wrong verdicts among {row.images}")
for row in reasons.itertuples():
    print(
        f"{row.split}: the map of the {row.map} correlates {row.median:.2f} with the side's (5 % of images: below {row.low:.2f})"
    )

# %% [markdown]
# ## Exercises
#
# **9.1** Write a control of your own: a function from a category to `prompts.Answers`. How bad must sentences be before the score
# is at chance?
#
# **9.2** Which category gains nothing from words? Look at its pictures: what does self-similarity see there?
#
# **9.3** Choose another `llm`. Does a strong LLM's bank lose more to the controls, or less?
