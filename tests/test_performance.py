"""The README quotes what was measured."""

import pandas as pd

from zsadlib.files import ROOT


def test_the_readme_quotes_the_committed_measurements(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "peers"))
    import performance

    table = pd.read_csv(ROOT / "results" / "performance.csv", keep_default_na=False)
    quoted = (ROOT / "README.md").read_text().split("<!-- performance -->\n")[1].split("<!-- /performance -->")[0]
    assert quoted == performance.ratios(table)
    assert set(table.runs) == {1, performance.RUNS} and performance.RUNS >= 5
