"""What users, files and language models wrote is only ever text: no formula, markup or control character of it acts."""

import warnings
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from zsadlib.evaluation import plots, published

HOSTILE = "bolt with $\\frac{1}{2$ {x} \x1b[31m \u202e <script>alert(1)</script> 5$ & 6\\$"
SHOWN = "bolt with $\\frac{1}{2$ {x} [31m  <script>alert(1)</script> 5$ & 6\\$"


@pytest.fixture
def style():
    with plt.rc_context(), pd.option_context("display.html.use_mathjax", True, "styler.html.mathjax", True):
        plots.use_style()
        yield


def _picture():
    return Image.new("RGB", (24, 24), "grey")


def _ensemble():
    generator = torch.Generator().manual_seed(0)
    words = [torch.nn.functional.normalize(torch.randn(5, 8, generator=generator), dim=-1) for _ in range(2)]
    return SimpleNamespace(
        t_normal=words[0], t_abnormal=words[1], axis=torch.ones(8), midpoint=torch.zeros(8), normal=["a"] * 5, abnormal=["b"] * 5
    )  # fmt: skip


def _table(**columns):
    return pd.DataFrame({"x": [HOSTILE, "b"], "hue": ["b", HOSTILE], "value": [0.5, 0.6]} | columns)


MAPS, MASKS = np.random.default_rng(0).random((2, 24, 24)), np.eye(24, dtype=bool)[None].repeat(2, 0)
REASON = {"prompt": HOSTILE, "side": "abnormal", "weight": 0.5, "map": MAPS[0]}
FIGURES = {
    "pictures": lambda: plots.pictures([_picture()], [HOSTILE], columns=1),
    "heat_maps": lambda: plots.heat_maps([_picture()] * 2, {HOSTILE: MAPS}, masks=MASKS, names=[HOSTILE, "b"]),
    "qualitative": lambda: plots.qualitative([(HOSTILE, [_picture()] * 2, {HOSTILE: MAPS}, MASKS)]),
    "over_shots": lambda: plots.over_shots(
        _table(dataset=HOSTILE, line=[HOSTILE, "b"], shots=[1, 2], seed=0, metric="image_auroc"), ["image_auroc"]
    ),
    "semantic_space": lambda: plots.semantic_space(_ensemble(), HOSTILE),
    "similarity_intervals": lambda: plots.similarity_intervals(torch.randn(1, 8), _ensemble(), [0], [HOSTILE]),
    "bars": lambda: plots.bars(_table(), "x", "value", "hue", "%"),
    "gains": lambda: plots.gains(_table(gain=0.1, low=0.05, high=0.2, up=1, of=2), "x", "points"),
    "dots": lambda: plots.dots(_table(low=0.05, high=0.2), "x", "hue", "%", at=0.5),
    "curves": lambda: plots.curves(_table(x=[1.0, 2.0]), "x", "hue", "%"),
    "panels": lambda: plots.curves(_table(x=[1.0, 2.0]), "x", "hue", "%", panels=True),
    "reasons": lambda: plots.reasons([_picture()], [HOSTILE], MAPS[:1], [[REASON]], MASKS[:1]),
    "differences": lambda: plots.differences(pd.DataFrame([[1.0]], index=[HOSTILE], columns=[HOSTILE]), HOSTILE[:4]),
    "reliability_diagram": lambda: plots.reliability_diagram({HOSTILE: (np.ones(1), np.ones(1), np.ones(1))}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_foreign_text_is_drawn_as_it_is_written(name, style, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")  # a control character reached the font
        figure = FIGURES[name]()
        figure.savefig(tmp_path / "a.png")  # a formula that is none fails here
    assert (tmp_path / "a.png").stat().st_size > 1000
    written = {"".join(text.get_text().split()) for text in figure.findobj(Text)}
    escaped = "".join(SHOWN.replace("$", r"\$").split())
    assert any(escaped in text for text in written), written
    assert not [text for text in written if "\x1b" in text or "\u202e" in text]


def test_every_figure_is_in_this_test():
    drawing = {
        name for name, it in vars(plots).items() if getattr(it, "__module__", "") == plots.__name__ and name[0] != "_"
    }
    assert drawing - {"use_style", "literal", "save", "save_overlay"} == set(FIGURES) - {"panels"}


def test_matplotlib_shows_what_was_written():
    figure, axis = plt.subplots()
    shown = axis.set_title(plots.literal(HOSTILE))
    plt.close(figure)
    text, formula = shown._preprocess_math(shown.get_text())
    assert not formula and text.replace("\\", "") == SHOWN.replace("\\", "")


def test_tables_in_notebooks_are_neither_formulas_nor_markup(style):
    table = pd.DataFrame({"prompt": [HOSTILE]})
    html = table.to_html(notebook=True)
    assert "mathjax_ignore" in html and "<script>" not in html
    values = pd.DataFrame([[1.0]], index=pd.MultiIndex.from_tuples([(HOSTILE, "alfa")]), columns=["image_auroc"])
    html = published.coloured(values).to_html()
    assert "mathjax_ignore" in html and "<script>" not in html and "&lt;script&gt;" in html
