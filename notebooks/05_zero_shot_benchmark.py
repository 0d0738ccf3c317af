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
# # 5 · The zero-shot benchmark
#
# **Question.** How well do words find and locate anomalies, category by category, in pictures that nothing was tuned on?
#
# The reading and the aligner's window were chosen on development categories and are frozen in the profile. The bank is the local
# LLM's, because anyone can record it again; notebook 3 compares the others. Here the test categories of MiniAD are scored,
# and textile photographs of a published set (400 of them in the `mini` profile).

# %% tags=["parameters"]
profile = "mini"
limit = 0  # images per category (0: all)

# %%
import numpy as np
import pandas as pd

from zsadlib import benchmark, datasets, plots, profiles, study

plots.use_style()
settings, results = profiles.load_profile(profile), study.results_folder(profile)
backbone = benchmark.profile_backbone(settings)
detectors = [benchmark.build_detector(method, settings, backbone) for method in settings.methods]
pd.DataFrame(settings.model_dump(mode="json").items(), columns=["setting", "value"]).set_index("setting")

# %% [markdown]
# Three methods, one backbone. `clip-ac` asks CLIP plainly for "normal" and "anomalous" and reads the raw patch tokens.
# `winclip` is the published baseline: an ensemble of static states and a pass for every window. `alfa` adds the
# LLM's prompts, contextual scoring and the aligner (both reconstructions), for the price of one pass.
#
# ## Run

# %%
categories = [c.take(limit) for name in settings.datasets for c in datasets.load_dataset(name)]
table = benchmark.evaluate(detectors, categories, settings.batch_size)
study.save_table(table, results, "benchmark")
print(f"{sum(len(c.test) for c in categories)} images of {len(categories)} categories, {len(table)} values")

# %% [markdown]
# ## Means
#
# In per cent, over the categories of a set. The textile set has no masks, so it has image metrics only.

# %%
benchmark.summary(table)

# %% [markdown]
# ## Category by category

# %%
test = table[table.dataset == "MiniAD test"]
per_category = test[test.metric.isin(["image_auroc", "pixel_auroc", "pixel_aupro"])].pivot_table(
    index="category", columns=["metric", "method"], values="value", sort=False
)
(100 * per_category).round(1)

# %%
figure = plots.bars(
    test[test.metric == "image_auroc"], "category", "value", "method", "image AUROC (%)", limits=(40, 100)
)
plots.save(figure, results, "benchmark_image_auroc")
# %%
figure = plots.bars(test[test.metric == "pixel_aupro"], "category", "value", "method", "pixel AUPRO (%)")
plots.save(figure, results, "benchmark_pixel_aupro")
# %% [markdown]
# ## Look at it
#
# The first defective image of four test categories, one colour scale for all.

# %%
chosen = [c for c in categories if c.dataset == "MiniAD test"][::2][:4]
samples = [next(s for s in c.test if s.label) for c in chosen]
images = [datasets.load_image(s.path) for s in samples]
maps = {detector.name: [] for detector in detectors}
for detector in detectors:
    for data, image in zip(chosen, images, strict=True):
        _, anomaly_map = detector.prepare(data.name).predict(backbone.preprocess([image]))
        maps[detector.name].append(anomaly_map[0].numpy())

# %%
masks = [datasets.load_mask(s, settings.map_size) for s in samples]
columns = {name: np.stack(m) for name, m in maps.items()}
figure = plots.heat_maps(images, columns, masks=masks, scale=(0, 1))
plots.save(figure, results, "benchmark_maps")

# %% [markdown]
# ## What we learn

# %%
means = test.pivot_table(index="method", columns="metric", values="value", sort=False)
for metric, name in [("image_auroc", "image AUROC"), ("pixel_auroc", "pixel AUROC"), ("pixel_aupro", "AUPRO")]:
    order = means[metric].sort_values(ascending=False)
    print(f"{name}: " + ", ".join(f"{method} {100 * value:.1f}" for method, value in order.items()))
hardest = test[(test.metric == "image_auroc") & (test.method == "alfa")].nsmallest(2, "value")
print("hardest for alfa: " + ", ".join(f"{r.category} ({100 * r.value:.1f})" for r in hardest.itertuples()))

# %% [markdown]
# On the textile photographs the methods that use words are below chance: there the score means nothing. Try a method on
# labelled pictures of a new surface before you believe it.
#
# F1-max in the table picks its threshold with the test labels, as published work does: it is an oracle. AUPRO is exact
# (no threshold grid). MiniAD is generated: it shows how the methods compare, not how they would do in a factory. Your
# own labelled photographs take one command: `zsad evaluate --root FOLDER --category "magnetic tile" --out metrics.csv`.
#
# ## Exercises
#
# **5.1** Which defect kinds are missed? Group the image scores of one category by `Sample.kind`.
#
# **5.2** Change the bank in a copy of `zsadlib/profiles/mini.json` and pass the file as `profile`. Is the strong LLM worth it?
#
# **5.3** Why can a method with a lower image AUROC have better maps?
