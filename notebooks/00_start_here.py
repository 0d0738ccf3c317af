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
# # 0 · Start here: a defect found by words alone
#
# **Question.** Can a model that has never seen a picture of an object tell a good one from a bad one, if we only
# *describe* the two?
#
# The object below is a plate. The model of this study was trained without plates, and no plate is used as a reference. All it
# gets is one photograph and a few sentences.

# %% tags=["parameters"]
profile = "mini"  # which model and settings: see zsadlib/profiles
category = "plate"  # any MiniAD category: try "hazelnut", "screw" or "brick"
kind = "crack"  # any defect kind: try "stain", "hole" or "chip"
seed = 4

# %%
from importlib.metadata import version

from PIL import Image

from zsadlib import profiles, study
from zsadlib.datasets import miniad
from zsadlib.evaluation import plots
from zsadlib.models import aligner
from zsadlib.prompts import scoring

print({name: version(name) for name in ("torch", "open_clip_torch", "zsadlib")})
plots.use_style()
settings = profiles.load_profile(profile)
results = study.results_folder(profile)

# %% [markdown]
# ## Two pictures
#
# MiniAD is the embedded data set: generated pictures with known defects (its textures are partly photographs). We draw a
# good object and the same one damaged. Nothing is loaded from disk, and nothing from the network.


# %%
def picture(state):
    image, mask = miniad.draw(category, state, miniad.generator(seed, category))
    return Image.fromarray((255 * image).astype("uint8")), mask


images, masks = zip(picture("good"), picture(kind), strict=True)
plots.pictures(images, ["good", kind], columns=2, width=2.4)

# %% [markdown]
# ## Two kinds of sentences
#
# A vision-language model turns pictures and sentences into vectors of one space, and what belongs together lies close.
# So we write down how a good object is called, and how a bad one.

# %%
normal = [f"flawless {category}", f"{category} without damage"]
abnormal = [f"damaged {category}", f"{category} with defect"]

# %%
backbone = study.profile_backbone(settings)
ensemble = scoring.build_ensemble(backbone, category, normal, abnormal)
encoded = backbone.encode(backbone.preprocess(images))
text = scoring.adapt(encoded.image, ensemble)
image_scores = scoring.anomaly_score(encoded.image, *text)

# %% [markdown]
# The image score is the softmax of two cosines: how much closer is the picture to the abnormal sentences than to the
# normal ones?

# %%
for name, value in zip(["good", kind], image_scores, strict=True):
    print(f"{category}, {name}: P(abnormal) = {value:.2f}")

# %% [markdown]
# ## And where is it?
#
# The same question can be asked of every patch of the picture. CLIP's patches do not speak the language of the
# sentences; the *aligner* (notebook 4) translates them, with one matrix that was fitted without labels.

# %%
aligned = study.profile_aligner(settings, backbone)(encoded.patches)
maps = aligner.to_map(scoring.anomaly_score(aligned, *text), settings.map_size)
figure = plots.heat_maps(images, {"anomaly map": maps.numpy()}, scale=(0, 1), masks=masks, width=2.4)
plots.save(figure, results, "first_light")

# %% [markdown]
# The white line is the truth; the model has not seen it.
#
# ## Your turn
#
# 1. Change a sentence above, for example to `f"{category} with a crack"`, and run the cells again. Does the score change?
# 2. Change `category`, `kind` or `seed` in the parameters cell. When do the words fail?
# 3. Point the method at your own photographs: `zsad score FOLDER --category "magnetic tile" --out scores.csv --maps maps`.
#
# ## Where the study goes
#
# | notebook | question |
# |---|---|
# | 01_prompt_generation | What does a language model say that normal and abnormal look like? |
# | 02_cross_semantic_ambiguity | When do its sentences mislead? |
# | 03_contextual_scoring | Can each image choose the sentences that fit it? |
# | 04_fine_grained_aligner | How does alignment get from the image to its patches? |
# | 05_zero_shot_benchmark | How good is it all, category by category? |
# | 06_few_shot_benchmark | What is one normal photograph worth, beside words? |
# | 07_ablations | Which part does the work, and does the aligner travel? |
# | 08_verdict_and_explanation | Can it decide without labels, say why, and be trusted? |
# | 09_controls | What else could explain these numbers? |
#
# The study rebuilds the idea of ALFA (Zhu et al., ACM MM 2024). The paper's own code and tables were not available here:
# what we could not know is called a *reconstruction* wherever it appears.
