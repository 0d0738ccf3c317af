import base64
import io
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import skimage.data
from PIL import Image

from zsadlib.datasets import miniad
from zsadlib.inspection import report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
HOSTILE = [
    "<script>window.stolen = 1</script>",
    '"><img src=x onerror="window.stolen=1">',
    "</script></style></title><script>window.stolen=1</script>",
    "{{ 7 * 7 }} {% raw %} $\\frac{1}{2}$ ${7*7} {0} %s",
    "gpj.\u202eexe\u2066\u200b",
    "\x1b[31mred\x1b]8;;x\x07\x00",
    "a' onmouseover='window.stolen=1",
    "not UTF-8 \udcff",
]


def drawing(kind="crack", number=1, size=200):
    pixels, _ = miniad.draw("bolt", kind, miniad.generator(number), size)
    return Image.fromarray((pixels * 255).astype(np.uint8))


def hot_spot(y=4, x=20, shape=(24, 24), value=0.9):
    anomaly_map = np.full(shape, 0.3)
    anomaly_map[y, x] = value
    return anomaly_map


def row(path, score=None, verdict="", error="", card=None, prompts=()):
    where = {"x": 170, "y": 40, "score": 0.9}
    reasons = [{"side": "abnormal", "prompt": p, "weight": 0.5, "score": 0.8, "where": where} for p in prompts]
    return {"path": path, "image_score": score, "verdict": verdict, "error": error, "reasons": reasons, "card": card}


def judged(path, score, threshold=0.5, **more):
    return row(path, score, "abnormal" if score >= threshold else "normal", **more)


class Page(HTMLParser):
    """Elements with their attributes, and the text outside style and script."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self.quiet = [], "", False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.quiet = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.quiet = False

    def handle_data(self, data):
        self.text += "" if self.quiet else data

    def all(self, tag, **attributes):
        return [a for t, a in self.elements if t == tag and attributes.items() <= a.items()]


def written(path, rows, threshold=0.5, title="bolts", about=None):
    report.write_report(path, title, rows, threshold, about or {"method": "alfa"})
    return Page(path)


def test_a_card_is_small_and_tells_the_photograph_s_size_and_no_comment_of_it():
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", comment=b"the customer's name" * 1000)
    card = report.card(Image.open(file), np.random.default_rng(1).random((600, 900)))
    assert len(json.dumps(card)) < 25_000
    assert (card["width"], card["height"]) == (900, 600)
    thumbnail = base64.b64decode(card["thumbnail"])
    assert Image.open(io.BytesIO(thumbnail)).size == (256, 171)
    assert b"customer" not in thumbnail


def test_a_hot_pixel_survives_in_the_small_map_at_its_place():
    values = np.full((300, 480), 0.25)
    values[299, 7] = 0.75
    card = report.card(drawing(), values)
    small = np.frombuffer(base64.b64decode(card["map"]), "<f2").reshape(card["shape"])
    assert small.shape == (30, 48)
    assert np.unravel_index(small.argmax(), small.shape) == (29, 0) and small.max() == 0.75


def test_a_map_with_nan_infinity_and_a_line_of_pixels_becomes_a_card():
    card = report.card(Image.new("RGB", (4000, 3)), np.array([[np.nan, 0.1, np.inf] * 300]))
    small = np.frombuffer(base64.b64decode(card["map"]), "<f2")
    assert card["shape"] == [1, 48] and np.isfinite(small).all() and small.max() > 1000


def test_photographs_stand_from_the_most_abnormal_to_the_most_normal(tmp_path):
    scores = {"c": 0.2, "a": 0.9, "e": -3.0, "b": 0.9, "d": 12.5}
    page = written(tmp_path / "r.html", [judged(path, score) for path, score in scores.items()])
    names = [a["title"] for a in page.all("p", **{"class": "name"})]
    assert names == ["d", "a", "b", "c", "e"]


def test_the_colour_of_a_map_value_is_the_same_on_every_photograph(tmp_path):
    cards = [report.card(drawing(), hot_spot(value=v)) for v in (0.9, 0.6)]
    page = written(tmp_path / "r.html", [judged("a", 0.9, card=cards[0]), judged("b", 0.6, card=cards[1])])
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(a["src"].split(",")[1]))))
        for a in page.all("img", **{"class": "map"})
    ]
    levels = [int(p[4, 20]) for p in pictures]
    assert levels[0] > levels[1] > 0 and pictures[0][0, 0] == pictures[1][0, 0] == 0
    assert levels[1] == pytest.approx(levels[0] * 0.5, abs=1.5)  # 0.6 lies half way from 0.3 to 0.9


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_text_can_leave_its_place_or_change_what_is_read(tmp_path, hostile):
    rows = [
        judged(hostile, 0.9, prompts=[hostile], card=report.card(drawing(), hot_spot())),
        row(hostile, error=hostile),
        judged("ordinary.png", 0.1),  # in no folder, so that all names stand in full
    ]
    page = written(tmp_path / "r.html", rows, title=hostile, about={hostile: hostile})
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert not [n for _, attributes in page.elements for n in attributes if n.startswith("on") or n == "style"]
    sources = {a.get(n, "") for _, a in page.elements for n in ("src", "href")} - {""}
    assert all(s.startswith(("data:", "#")) for s in sources)
    assert page.text.count(report._inert(hostile)) == 8  # title twice, name and sentence, name and error, about twice
    assert not set(page.source) & set("\x00\x07\x1b\u202e\u2066\u200b\udcff")


def test_a_report_names_no_address_and_allows_only_its_own_script(tmp_path):
    page = written(tmp_path / "r.html", [judged("a", 0.9, card=report.card(drawing(), hot_spot()))])
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy["content"]
    assert "http:" not in page.source and "https:" not in page.source and "url(#" in page.source
    assert page.source.count("url(") == page.source.count("url(#")


def test_every_photograph_has_a_text_for_those_who_do_not_see_it(tmp_path):
    page = written(tmp_path / "r.html", [judged("x/a.png", 0.9, card=report.card(drawing(), hot_spot()))])
    assert all("alt" in a for a in page.all("img"))
    assert page.all("img", alt="Photograph a.png")


def test_a_threshold_that_is_no_number_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="finite number"):
        report.write_report(tmp_path / "r.html", "t", [], float("nan"), {})
    assert not list(tmp_path.iterdir())


def test_a_thousand_photographs_of_textures_stay_below_60_megabytes(tmp_path):
    textures = [
        Image.fromarray(f()).convert("RGB") for f in (skimage.data.grass, skimage.data.gravel, skimage.data.brick)
    ]
    maps = np.random.default_rng(0).random((3, 60, 60))
    cards = [report.card(texture, anomaly_map) for texture, anomaly_map in zip(textures, maps, strict=True)]
    rows = [judged(f"photos/{i:04d}.jpg", i / 1000, prompts=["a scratch"] * 3, card=cards[i % 3]) for i in range(1000)]
    page = written(tmp_path / "r.html", rows)
    assert len(page.all("img", **{"class": "map"})) == 1000
    assert (tmp_path / "r.html").stat().st_size < 60e6


@pytest.fixture(scope="module")
def chromium():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def opened(chromium, path, size):
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chromium.get(path.as_uri())
    return chromium


def well(chromium):
    """No message in the console, nothing wider than the window, nothing of a hostile text executed."""
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert chromium.execute_script("return window.stolen === undefined")
    return True


def shown_counts(chromium):
    return {
        name: int(chromium.find_element("css selector", f".filter [data-count={name}]").text)
        for name in ("all", "abnormal", "normal", "failed")
    }


def visible(chromium, selector):
    return sum(element.is_displayed() for element in chromium.find_elements("css selector", selector))


@needs_chromium
@pytest.mark.parametrize("size", SIZES)
def test_in_a_browser_slider_filter_and_maps_do_what_they_say(tmp_path, chromium, size):
    from selenium.webdriver.common.keys import Keys

    scores = np.linspace(0.05, 0.95, 10)
    rows = [
        judged(
            f"today/{'long' * 20}-{i}.png",
            float(s),
            prompts=["a deep scratch"],
            card=report.card(drawing(), hot_spot()),
        )
        for i, s in enumerate(scores)
    ]
    rows[0]["verdict"] = "abnormal"  # a method's own verdict, which its score would not give
    rows += [row("today/broken.png", error="it is cut short"), judged("today/unseen.png", 0.01)]
    written(tmp_path / "r.html", rows, about={"sentences": "x" * 300})
    opened(chromium, tmp_path / "r.html", size)

    assert well(chromium)
    assert shown_counts(chromium) == {"all": 12, "abnormal": 6, "normal": 5, "failed": 1}
    slider, number, reset = (chromium.find_element("id", name) for name in ("slider", "number", "reset"))
    assert not reset.is_enabled()

    slider.send_keys(Keys.HOME)
    assert shown_counts(chromium) == {"all": 12, "abnormal": 11, "normal": 0, "failed": 1}
    slider.send_keys(Keys.END)
    assert shown_counts(chromium) == {"all": 12, "abnormal": 0, "normal": 11, "failed": 1}
    number.clear()
    number.send_keys("0.84")
    assert shown_counts(chromium)["abnormal"] == 2
    assert float(slider.get_attribute("value")) == pytest.approx(0.84)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert float(number.get_attribute("value")) > 0.84
    at = float(chromium.find_element("id", "line").get_attribute("x1").rstrip("%"))
    assert at > float(chromium.find_element("id", "given").get_attribute("x1").rstrip("%"))

    for show, cards, failed in [("abnormal", 2, 0), ("normal", 9, 0), ("failed", 0, 1), ("all", 11, 1)]:
        chromium.find_element("css selector", f"[value={show}] + span").click()
        assert (visible(chromium, ".card"), visible(chromium, "#failed dt")) == (cards, failed)
        assert well(chromium)

    reset.click()
    assert shown_counts(chromium) == {"all": 12, "abnormal": 6, "normal": 5, "failed": 1}
    assert float(number.get_attribute("value")) == 0.5 and not reset.is_enabled()

    opacity = "return getComputedStyle(document.querySelector('.map')).opacity"
    chromium.find_element("css selector", "h1").click()
    assert chromium.execute_script(opacity) == "1"
    chromium.find_element("id", "maps").click()
    chromium.execute_script("for (const fade of document.getAnimations()) fade.finish()")
    assert chromium.execute_script(opacity) == "0"
    assert well(chromium)


@needs_chromium
@pytest.mark.parametrize("size", SIZES)
def test_in_a_browser_map_and_rings_lie_on_the_photograph_whatever_its_proportions(tmp_path, chromium, size):
    rows = [
        judged(
            f"{width}x{height}",
            0.9,
            prompts=["a hole"],
            card=report.card(Image.new("RGB", (width, height)), hot_spot()),
        )
        for width, height in [(300, 900), (900, 300), (400, 400), (60, 40)]
    ]
    written(tmp_path / "r.html", rows)
    opened(chromium, tmp_path / "r.html", size)
    boxes = chromium.execute_script("""
        return [...document.querySelectorAll(".picture")].map((picture) => [...picture.children].map((child) => {
            const box = child.getBoundingClientRect();
            return [box.x, box.y, box.width, box.height];
        }));""")
    for photograph, anomaly_map, rings in boxes:
        assert photograph == pytest.approx(anomaly_map, abs=1) and photograph == pytest.approx(rings, abs=1)
    shapes = [box[0][2] / box[0][3] for box in boxes]
    assert sorted(shapes) == pytest.approx([1 / 3, 1, 1.5, 3], rel=0.03)


@needs_chromium
@pytest.mark.parametrize(
    "rows",
    [
        [],
        [judged("only.png", 0.7)],
        [row("a.png", error="not an image"), row("b.png", error="not an image")],
        [judged("a", -40.0, 7.5), judged("b", 12_345.0, 7.5), judged("c", 7.5, 7.5)],
        [judged("same", 0.5), judged("same again", 0.5)],
        [judged(text, 0.9, prompts=[text]) for text in HOSTILE] + [row(text, error=text) for text in HOSTILE],
    ],
    ids=["none", "one", "all failed", "any scale", "equal scores", "hostile"],
)
def test_in_a_browser_odd_reports_open_without_a_complaint(tmp_path, chromium, rows):
    threshold = 7.5 if any((r["image_score"] or 0) > 1 for r in rows) else 0.5
    written(tmp_path / "r.html", rows, threshold, title=HOSTILE[2], about={HOSTILE[0]: HOSTILE[1]})
    for size in SIZES:
        opened(chromium, tmp_path / "r.html", size)
        assert well(chromium)
        failed = sum(r["image_score"] is None for r in rows)
        abnormal = sum(r["verdict"] == "abnormal" for r in rows)
        counts = {"all": len(rows), "abnormal": abnormal, "normal": len(rows) - failed - abnormal, "failed": failed}
        assert shown_counts(chromium) == counts
        if failed < len(rows):
            for key, side in (("min", "abnormal"), ("max", "normal")):
                chromium.execute_script(
                    f"slider.value = slider.{key}; slider.dispatchEvent(new Event('input', {{ bubbles: true }}))"
                )
                assert shown_counts(chromium)[side] == len(rows) - failed
