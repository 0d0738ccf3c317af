"""The report of an inspection: one HTML file that needs nothing else, made to be read beside the line.

Its page is ``report.html`` (a Jinja template), ``report.css`` and ``report.js``. What users, files and language models wrote
reaches the page only as escaped text; a content security policy lets nothing run but the one script, nothing load at all.
"""

import base64
import functools
import hashlib
import io
import math
import os
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator
from PIL import Image

from zsadlib.files import replacing
from zsadlib.inspection.text import inert

HERE = Path(__file__).parent
THUMBNAIL_BYTES = 13_500  # with the map, and as base64, a card stays below 25 kB
QUALITIES = (80, 70, 60, 50, 40, 30, 20)
MAP_SIDE = 48
BINS = 40
RING = 0.06  # radius of a ring, of the photograph's longer side
LEVELS = 64
COLOURS = colormaps["inferno"](np.linspace(0.2, 0.88, LEVELS))  # its pale end would vanish on a bright photograph
COLOURS[:, 3] = np.linspace(0, 0.85, LEVELS)  # an ordinary place shows the photograph, an abnormal one the colour


def card(image, anomaly_map=None, size=256):
    """What the report keeps of one photograph, to be taken while its pixels are at hand; below 25 kB as JSON.

    Args:
        image: the upright photograph, a PIL image of any size.
        anomaly_map: (h, w) over the whole photograph, or None; it may come later (``small_map``).
        size: pixels of the thumbnail's longer side, at most.

    Returns:
        dict: thumbnail (base64 of a JPEG), width and height of the photograph in pixels, and what ``small_map`` says.
    """
    thumbnail = base64.b64encode(_jpeg(image.convert("RGB"), size)).decode()
    return {"thumbnail": thumbnail, "width": image.width, "height": image.height} | small_map(anomaly_map)


def small_map(anomaly_map):
    """The map of a card.

    Args:
        anomaly_map: (h, w), or None.

    Returns:
        dict: map (base64 of a little-endian float16 array, every value the maximum of its place, so that a small hot spot
        survives; "" without a map), shape [h, w] of that array.
    """
    if anomaly_map is None:
        return {"map": "", "shape": [0, 0]}
    small = _pooled(np.asarray(anomaly_map, np.float32))
    return {"map": base64.b64encode(small.tobytes()).decode(), "shape": list(small.shape)}


def _jpeg(image, size):
    scale = min(1, size / max(image.size))
    side = [max(1, round(n * scale)) for n in image.size]
    small = image.resize(side, Image.BICUBIC, reducing_gap=2)
    small.info.clear()  # a comment of the photograph would be written again
    for quality in QUALITIES:
        file = io.BytesIO()
        small.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= THUMBNAIL_BYTES:
            break
    return file.getvalue()


def _pooled(values):
    finite = values[np.isfinite(values)]
    values = np.nan_to_num(values, nan=finite.min() if finite.size else 0.0)
    scale = min(1, MAP_SIDE / max(values.shape))
    for axis, n in enumerate(values.shape):
        m = max(1, round(n * scale))
        values = np.maximum.reduceat(values, np.arange(m) * n // m, axis=axis)
    limit = np.finfo(np.float16).max
    return np.clip(values, -limit, limit).astype("<f2")


def write_report(path, title, rows, threshold, about):
    """Write the report to ``path``.

    Args:
        title: heading of the page.
        rows: dicts: path, image_score (None where it failed), verdict ("normal", "abnormal" or ""), error (a sentence or ""),
            reasons (dicts: side, prompt, weight in [0, 1], score, where {x, y, score} in pixels of the photograph; may be
            empty) and card (of ``card``, or None).
        threshold: abnormal from this score.
        about: dict of text -> text: how these scores came about.

    Raises:
        ValueError: the threshold is not a finite number.
    """
    threshold = float(threshold)
    if not math.isfinite(threshold):
        raise ValueError(f"a report needs a finite number as its threshold, not {threshold}")
    scored = [row for row in rows if _has_score(row)]
    scored.sort(key=lambda row: (-float(row["image_score"]), str(row["path"])))
    failed = [row for row in rows if not _has_score(row)]
    scores = np.array([row["image_score"] for row in scored], np.float64)
    axis = _axis(scores, threshold)
    maps = [_map(row["card"]) for row in scored if row["card"] and row["card"]["map"]]
    low, high = _colour_scale(maps)
    folder = _common_folder([str(row["path"]) for row in rows])

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (Markup((HERE / f"report.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js"))
    page = environment.get_template("report.html").generate(
        title=title,
        style=style,
        script=script,
        policy=_policy(style, script),
        photographs=(_photograph(row, threshold, folder) for row in scored),  # one at a time: thousands may come
        verdicts=[_verdict(row, threshold) for row in scored],
        failed=[{"name": _name(row, folder), "path": str(row["path"]), "error": row["error"]} for row in failed],
        folder=folder,
        threshold=threshold,
        axis=axis,
        bars=_bars(scores, threshold, axis),
        maps=len(maps),
        explained=any(row["reasons"] for row in scored),
        overlay=functools.partial(_overlay, low=low, high=high),
        bar={"picture": _png(np.arange(LEVELS)[None]), "low": f"{low:.3g}", "high": f"{high:.3g}"},
        about=about,
    )
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(page)


def _has_score(row):
    return row["image_score"] is not None and math.isfinite(row["image_score"])


def _verdict(row, threshold):
    return row["verdict"] or ("abnormal" if row["image_score"] >= threshold else "normal")


def _inert(value):
    """``inert`` of what is text and no markup of our own."""
    return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _policy(style, script):
    """Content security policy: nothing is loaded, and of style and script only what is hashed here."""
    style, script = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    allowed = f"img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _common_folder(paths):
    """The folder that all files lie in, "" where there is none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # no file at all, or some absolute and some relative
        return ""


def _name(row, folder):
    return str(row["path"]).removeprefix(folder).lstrip("/\\" if folder else "")


def _photograph(row, threshold, folder):
    """One scored photograph as the page shows it."""
    return {
        "path": str(row["path"]),
        "name": _name(row, folder),
        "score": float(row["image_score"]),
        "verdict": _verdict(row, threshold),
        "card": row["card"],
        "reasons": row["reasons"],
        "rings": _rings(row["reasons"], row["card"]) if row["card"] else [],
    }


def _rings(reasons, card):
    """Where the abnormal sentences look: x, y, the numbers of those that look at the same place, or nearly."""
    rings = []
    near = RING * max(card["width"], card["height"])
    for number, reason in enumerate(reasons, 1):
        if reason["side"] == "abnormal":
            x, y = reason["where"]["x"], reason["where"]["y"]
            same = next((ring for ring in rings if math.hypot(ring["x"] - x, ring["y"] - y) < 2 * near), None)
            if same:
                same["label"] += f" {number}"
            else:
                rings.append({"x": x, "y": y, "radius": near, "label": str(number)})
    return rings


def _axis(scores, threshold):
    """The axis of scores, wide enough that a threshold on it can call all photographs normal or all abnormal."""
    low, high = min([threshold, *scores]), max([threshold, *scores])
    margin = 0.04 * ((high - low) or abs(high) or 1)
    low, high = low - margin, high + margin
    exponent = math.floor(math.log10(high - low))
    step = 5 * 10.0 ** (exponent - 3)  # 200 to 2,000 steps
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    return {
        "low": low,
        "high": high,
        "step": step,
        "decimals": max(0, 3 - exponent),
        "ticks": [{"at": 100 * (tick - low) / (high - low), "label": f"{tick:.6g}"} for tick in ticks],
    }


def _bars(scores, threshold, axis):
    """Histogram: x, width and height of each bar in percent. The threshold lies between two bars, it cuts none."""
    length = axis["high"] - axis["low"]
    places, counts = np.unique(np.floor((scores - threshold) / length * BINS), return_counts=True)
    start = 100 * (threshold - axis["low"]) / length
    tallest = max(counts, default=1)
    return [
        {"x": start + 100 * place / BINS, "width": 100 / BINS, "height": max(3, 100 * n / tallest), "count": n}
        for place, n in zip(places.tolist(), counts.tolist(), strict=True)
    ]


def _map(card):
    return np.frombuffer(base64.b64decode(card["map"]), "<f2").reshape(card["shape"]).astype(np.float32)


def _colour_scale(maps):
    """(low, high) for every map of the report: an ordinary place, and what only a hundredth of the photographs exceed."""
    if not maps:
        return 0.0, 1.0
    low = float(np.median([np.median(values) for values in maps]))
    high = float(np.percentile([values.max() for values in maps], 99))
    return low, high if high > low else low + 1


def _overlay(card, low, high):
    """A card's map as a PNG in base64: LEVELS colours, transparent at ``low``, nearly opaque at ``high``."""
    level = np.clip((_map(card) - low) / (high - low), 0, 1) * (LEVELS - 1)
    return _png(np.rint(level))


def _png(level):
    image = Image.fromarray(level.astype(np.uint8))
    image.putpalette(np.rint(COLOURS[:, :3] * 255).astype(np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=np.rint(COLOURS[:, 3] * 255).astype(np.uint8).tobytes())
    return base64.b64encode(file.getvalue()).decode()
