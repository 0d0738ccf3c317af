"""How good is a prompt bank? Measures of cross-semantic ambiguity, before any image is scored and with images.

A prompt is *ambiguous on the text side* if it lies on the wrong side of the axis that the static states span, and *for an
image* if its similarity falls where the normal and the abnormal similarity intervals overlap. (The paper names the
phenomenon; these measures are this project's.)
"""

import pandas as pd
import torch


def prompt_table(ensemble):
    """One row per prompt: side, prompt, position on the axis, own_side, nearest opposite prompt and its similarity."""
    rows = []
    sides = [
        ("normal", ensemble.normal, ensemble.t_normal, ensemble.abnormal, ensemble.t_abnormal),
        ("abnormal", ensemble.abnormal, ensemble.t_abnormal, ensemble.normal, ensemble.t_normal),
    ]
    for side, prompts, t, others, t_other in sides:
        position = ensemble.side(t)
        nearest = (t @ t_other.T).max(1)
        for i, prompt in enumerate(prompts):
            place = float(position[i])
            rows.append(
                {
                    "side": side,
                    "prompt": prompt,
                    "position": place,
                    "own_side": (place > 0) == (side == "abnormal"),
                    "nearest_opposite": others[int(nearest.indices[i])],
                    "similarity": float(nearest.values[i]),
                }
            )
    return pd.DataFrame(rows)


def diversity(t):
    """1 - mean pairwise cosine of the prompts of a side (n, dim): 0 for copies of one sentence."""
    n = len(t)
    return float(1 - ((t @ t.T).sum() - n) / (n * (n - 1))) if n > 1 else 0.0


def overlap_rate(image, ensemble):
    """Share of prompts, averaged over images (batch, dim), whose similarity lies in the interval intersection: [0, 1]."""
    s_normal, s_abnormal = image @ ensemble.t_normal.T, image @ ensemble.t_abnormal.T
    low = torch.maximum(s_normal.amin(1), s_abnormal.amin(1))[:, None]
    high = torch.minimum(s_normal.amax(1), s_abnormal.amax(1))[:, None]
    s = torch.cat([s_normal, s_abnormal], 1)
    return float(((s >= low) & (s <= high)).float().mean())


def measures(ensemble, image=None):
    """Measures of one category's bank, all in [0, 1] but ``prompts``: a dict.

    side_accuracy: share of prompts on their own side. ambiguity: share of prompts in the interval overlap, averaged over
    the images (None without images). diversity: mean of both sides'. nearest_opposite: mean similarity of a prompt to the
    closest prompt of the other side.
    """
    table = prompt_table(ensemble)
    return {
        "prompts": len(table),
        "side_accuracy": float(table.own_side.mean()),
        "ambiguity": None if image is None else overlap_rate(image, ensemble),
        "diversity": (diversity(ensemble.t_normal) + diversity(ensemble.t_abnormal)) / 2,
        "nearest_opposite": float(table.similarity.mean()),
    }


def why(row):
    """The reason, in words, that a row of ``prompt_table`` may be ambiguous."""
    if not row.own_side:
        wrong = "abnormal" if row.side == "normal" else "normal"
        return f"written as {row.side}, lies on the {wrong} side"
    other = "abnormal" if row.side == "normal" else "normal"
    return f"closest {other} one ({row.similarity:.2f}): “{row.nearest_opposite}”"
