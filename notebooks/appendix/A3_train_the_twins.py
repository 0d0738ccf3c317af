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
# # A3 · How the twins are trained: CLIP's recipe in three doses
#
# **Question.** What happens to an LLM's prompts if a model has rarely read about damage?
#
# The study's own model, the *specialist* of appendix A1, was taught damage directly. After that any words for damage mean the
# same to it, and the paper's subject, *cross-semantic ambiguity*, has nowhere to arise. So three small models are trained here.
#
# The twins were trained by CLIP's recipe and nothing else: one caption a picture, about everything that can be seen, and plain
# contrast over the batch. There are no pairs of sentences, no crops and no parts that are not CLIP's. They differ in one thing:
# 10, 30 or 80 % of the damaged pictures have a caption that mentions the damage, and two fifths as many of the intact ones one
# that mentions their state. Damaged and intact pictures are framed by one rule.
#
# The share is called the *dose*. Captions of the web name an object, its colour or the light far more often than a scratch.
# Everything here was fixed before any score of ambiguity or of contextual scoring was looked at; only the number of steps was
# allowed to change, and static prompts alone were to decide that. It was not changed.
#
# Install what it needs with `pip install -c constraints.txt -e '.[train]'`. A full run takes two CPU cores two hours at most,
# half an hour for each twin after the drawing, and 7 GB of disk; a run that was stopped goes on from its last checkpoint.

# %% tags=["parameters"]
profile = "mini"  # not used here; every notebook has it
work = ""  # folder of the training set and the checkpoints; default data/training
out = ""  # folder of the weights; default that folder, so that the committed ones stay
scenes = 10000  # drawings of four photographs each
steps = 1200  # optimiser steps
whole = 120  # the last of them, which see every patch
batch = 192  # photographs a step
limit = 0  # development images per category in the check at the end (0: all)

# %%
import inspect
from pathlib import Path

import pandas as pd
from PIL import Image

from zsadlib import datasets, prompts, study
from zsadlib.evaluation import metrics, plots
from zsadlib.files import DATA
from zsadlib.models import embedded
from zsadlib.models.loading import load_backbone
from zsadlib.prompts import scoring
from zsadlib.training import alt_texts, twins
from zsadlib.training.scenes import draw_scene

plots.use_style()
pd.set_option("display.max_colwidth", 120)
work = Path(work or DATA / "training")
out = Path(out or work)

# %% [markdown]
# ## Pictures
#
# A scene is one drawing, photographed four times: twice intact, twice with a defect. Every photograph is framed by one rule.
# A defect is drawn, the camera keeps its place in view, and in half of the photographs the defect is then left out. So nothing
# about a picture's framing tells whether it is damaged. The generator writes down what it did:

# %%
shown = [draw_scene(0, i) for i in range(2)]
images = [Image.fromarray(image) for scene, _ in shown for image in scene]
facts = [fact for _, of_scene in shown for fact in of_scene]
plots.pictures(images, [f"{fact['object']},\n{fact['state']}" for fact in facts], columns=8, width=1.3)

# %%
pd.DataFrame(facts)

# %% [markdown]
# ## Captions
#
# One a picture, about everything: the object, its colour and material, the ground, the view, the light, how sharp it is. Each
# attribute is mentioned with the same small probability. Whether the state is mentioned depends on the dose, and with a larger
# dose nothing else of the caption changes. None of WinCLIP's eleven static phrases is ever used, so static prompts and an LLM's
# stand alike before these models.

# %%
doses = list(embedded.DOSES)
pd.DataFrame({f"dose {dose}": [alt_texts.caption(0, i, fact, dose) for i, fact in enumerate(facts)] for dose in doses})

# %% [markdown]
# ## The loss
#
# Every picture must find its own caption among those of the batch, and every caption its picture.

# %%
print(inspect.getsource(twins.contrastive_loss))

# %% [markdown]
# ## Training

# %%
histories = {dose: twins.train(work, dose, out, scenes, steps, whole, batch) for dose in doses}
files = {dose: out / f"{embedded.TWIN}-{embedded.DOSES[dose]}.safetensors" for dose in doses}
print({dose: f"{file.stat().st_size / 1e6:.1f} MB" for dose, file in files.items()})

# %%
figure, axis = plots.plt.subplots(figsize=(7, 2.6))
for dose, history in histories.items():
    axis.plot(history.step, history.loss.rolling(min(25, steps), min_periods=1).mean(), label=f"dose {dose}")
axis.axvline(steps - whole, color="0.5", ls="--", lw=1)
axis.set(xlabel="step (dashed: from here with every patch)", ylabel="loss, mean of 25 steps")
axis.legend()
plots.plt.show()

# %% [markdown]
# ## Do they see damage at all?
#
# Image AUROC on the development categories in per cent, static prompts, nothing adapted: the one number that was looked at
# while the recipe could still change.

# %%
answers = {c.name: prompts.load_bank("static", c.noun).answers for c in datasets.load_dataset("miniad-development")}
rows = {}
for dose, file in files.items():
    model, rows[f"dose {dose}"] = load_backbone(embedded.TWIN, str(file)), {}
    for data in (c.take(limit) for c in datasets.load_dataset("miniad-development")):
        sides = [
            scoring.side_embedding(model, side) for side in (answers[data.name].normal, answers[data.name].abnormal)
        ]
        image = study.encode_category(model, data).image
        scores = scoring.anomaly_score(image, *(t.expand(len(image), -1) for t in sides))
        rows[f"dose {dose}"][data.name] = metrics.image_metrics(data.labels, scores.numpy())["image_auroc"]
table = 100 * pd.DataFrame(rows).T
table.assign(mean=table.mean(axis=1)).round(1)

# %% [markdown]
# What becomes of ambiguity and of contextual scoring as the dose falls is the last figure of notebook 3. To make a run's weights
# the committed ones, pass `zsadlib/weights` as `out` and publish the study.
#
# ## Exercises
#
# Both edit the library (and restart the kernel after it); `scenes` and `steps` of a tenth show the tendency in ten minutes.
#
# **A3.1** Let captions mention nothing but the object and its state (`MENTION` in `zsadlib/training/alt_texts.py`). Which dose
# gains most?
#
# **A3.2** Give WinCLIP's phrases back to the captions. Do static prompts gain more than the LLM's?
