"""Speed and memory, ours and anomalib's, side by side in one run on one machine (make bench).

    python performance.py PYTHON-OF-THE-PEER

Writes results/performance.csv and results/performance.png: medians of ``RUNS`` runs in which all sides take turns; memory, and
what does not vary, once. Absolute times mean nothing elsewhere, ratios do. Weights are random: speed does not depend on them.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_auc_score
from tqdm import tqdm

from zsadlib import datasets, profiles
from zsadlib.detectors.alfa import Alfa
from zsadlib.detectors.winclip import WinClip
from zsadlib.evaluation import metrics
from zsadlib.files import ROOT, replacing
from zsadlib.models import aligner, loading, store
from zsadlib.study import benchmark, methods, tables, units

RUNS = 5
BATCHES = (1, 2, 4)
MAPS = (20, 40, 80)
IMAGES = (500, 4000)
SET = 1725  # MVTec AD's test images
PAPER = profiles.load_profile("paper")
HERE = Path(__file__).parent


class Peer:
    """anomalib in its own environment; ``peer("winclip", 2)`` makes it run once and gives the seconds."""

    def __init__(self, python, folder):
        command = [python, "-W", "ignore", str(HERE / "anomalib_speed.py"), str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("anomalib did not start; what it said stands above")
        return self

    def __exit__(self, *_):
        self.process.kill()

    def __call__(self, what, number):
        self.process.stdin.write(json.dumps({"what": what, "number": number}) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def seconds(run):
    began = time.perf_counter()
    with torch.inference_mode():
        run()
    return time.perf_counter() - began


def take_turns(task, number, contestants):
    """Rows of one comparison. contestants: name -> function that runs once and returns the seconds."""
    for run in contestants.values():
        run()  # the first warms up
    took = {name: [] for name in contestants}
    for _ in range(RUNS):
        for name, run in contestants.items():
            took[name].append(run())
    for name, times in took.items():
        yield {"task": task, "number": number, "who": name, "value": float(np.median(times)), "unit": "s", "runs": RUNS}


def images(peer, number):
    """One batch of preprocessed images to scores and maps, ViT-B-16-plus-240."""
    batch = torch.randn(number, 3, 240, 240, generator=torch.Generator().manual_seed(1))
    reference = loading.load_backbone(PAPER.backbone, "", "cpu", True, PAPER.image_size)
    fast = loading.load_backbone(PAPER.backbone, "", "cpu", True, PAPER.image_size, "bfloat16")
    matrix = torch.randn(reference.width + 1, reference.dim)
    contestants = {}
    for name, backbone in (("float32", reference), ("bfloat16", fast)):
        alfa = Alfa(backbone, aligner.Aligner(matrix, backbone.name), ("static",)).prepare("screw")
        winclip = WinClip(backbone, 240).prepare("screw")
        contestants |= {
            f"forward pass, {name}": lambda b=backbone: seconds(lambda: forward_pass(b, batch)),
            f"alfa, {name}": lambda d=alfa: seconds(lambda: d.predict(batch)),
            f"winclip, {name}": lambda d=winclip: seconds(lambda: d.predict(batch)),
        }
    contestants |= {
        "anomalib winclip, float32": lambda: peer("winclip", number),
        "anomalib winclip, bfloat16": lambda: peer("winclip_bfloat16", number),
    }
    yield from take_turns("images", number, contestants)


def forward_pass(backbone, batch):
    with backbone._fast():
        return backbone.model.encode_image(batch)


def pictures(number, size):
    """Maps with broad bumps, and masks of which every second has no defect and the others a few regions, as in a test set."""
    rng = torch.Generator().manual_seed(number)
    maps, coarse = (
        torch.nn.functional.interpolate(torch.rand(number, 1, side, side, generator=rng), size=size, mode="bilinear")[
            :, 0
        ]
        for side in (15, 9)
    )
    masks = coarse > 0.93
    masks[::2] = False
    return maps, masks


def region_overlap(peer, folder, number):
    maps, masks = pictures(number, 256)
    torch.save((maps, masks.int()), folder / f"maps{number}.pt")
    contestants = {
        "ours, exact": lambda: seconds(lambda: metrics.aupro(masks.numpy(), maps.numpy())),
        "anomalib": lambda: peer("aupro", number),
        "200 thresholds": lambda: seconds(lambda: metrics.aupro_200(masks.numpy(), maps.numpy())),
    }
    yield from take_turns("aupro", number, contestants)


def pixels(number):
    maps, masks = (x.numpy() for x in pictures(number, 256))

    def scikit_learn():
        precision, recall, _ = precision_recall_curve(masks.ravel(), maps.ravel())
        ap = -np.sum(np.diff(recall) * precision[:-1])
        return (
            roc_auc_score(masks.ravel(), maps.ravel()),
            ap,
            np.max(2 * precision * recall / (precision + recall + 1e-300)),
        )

    contestants = {
        "ours (and aupro)": lambda: seconds(lambda: metrics.pixel_metrics(masks, maps)),
        "scikit-learn": lambda: seconds(scikit_learn),
    }
    yield from take_turns("pixel auroc, ap, f1max", number, contestants)


def whole_set():
    """All pixel metrics of a set as large as MVTec AD's; run in a process of its own for its peak of memory."""
    patches, masks = torch.rand(SET, 15 * 15), pictures(6, 240)[1].numpy()
    return seconds(
        lambda: metrics.pixel_metrics(
            metrics.Truth(masks[None, i % len(masks)] for i in range(SET)), aligner.Upsampled(patches, 240)
        )
    )


def write_pictures(folder, number):
    """A category of ``number`` different photographs, half of them with a mask."""
    base = [datasets.load_image(s.path) for s in datasets.load_miniad("seen_test")[0].take(8).test]
    rng, mask = np.random.default_rng(0), np.zeros((128, 128), np.uint8)
    mask[50:70, 40:60] = 255
    for kind in ("test/good", "test/bad", "ground_truth/bad"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i in range(number):
        picture = np.asarray(base[i % 8].resize((128, 128)), np.int16) + rng.integers(-9, 10, (128, 128, 3))
        kind = "bad" if i % 2 else "good"
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / f"test/{kind}/{i:04d}.png")
        if i % 2:
            Image.fromarray(mask).save(folder / f"ground_truth/bad/{i:04d}_mask.png")


def benchmark_of(folder, number):
    """``benchmark.evaluate`` of two methods on the first ``number`` pictures (no windows: they would hide what grows)."""
    profile = profiles.load_profile("mini")
    category = datasets.read_category(folder, "bolt")
    order = sorted(category.test, key=lambda s: s.path.name)[: int(number)]
    asked = [units.Unit("alfa"), units.Unit("clip-ac")]
    backbone = loading.profile_backbone(profile)
    return seconds(lambda: benchmark.evaluate(profile, backbone, [replace(category, test=tuple(order))], asked))


def child(what, *arguments):
    """Seconds and peak memory (GB) of one of the functions above in a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--child", cache, what, *map(str, arguments)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    return json.loads(found)


def be_child(cache, what, *arguments):
    torch.set_num_threads(2)
    store.FOLDER, units.UNITS = Path(cache) / "embeddings", Path(cache) / "units"
    took = globals()[what](*arguments)
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory before exec
    print(json.dumps([took, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1e6]))


def precision():
    """Largest difference of an image or pixel AUROC of alfa between bfloat16 and float32, over MiniAD's seen test categories."""
    profile, found = profiles.load_profile("mini"), []
    categories = datasets.load_miniad("seen_test")
    for name in ("float32", "bfloat16"):
        plan = profile.model_copy(update={"precision": name})
        backbone = loading.profile_backbone(plan)
        detector = methods.build_detector("alfa", plan, backbone)
        table = benchmark.evaluate(plan, backbone, categories, [units.Unit("alfa")], {"alfa": detector})
        found.append(table[table.metric.isin(["image_auroc", "pixel_auroc"])].value.to_numpy())
    return float(np.abs(found[0] - found[1]).max())


def pipeline(folder):
    """From image files of MVTec AD's size to kept embeddings, and the model alone on the same batches in memory."""
    rng = np.random.default_rng(0)
    for i in range(32):
        coarse = rng.integers(0, 256, (64, 64, 3), np.uint8)
        noise = rng.integers(-8, 9, (1024, 1024, 3))
        large = np.asarray(Image.fromarray(coarse).resize((1024, 1024)), np.int16) + noise
        Image.fromarray(np.clip(large, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    backbone = loading.load_backbone(PAPER.backbone, "", "cpu", True, PAPER.image_size)
    backbone, kept = backbone.in_batches_of(4), store.FOLDER
    paths = sorted(folder.glob("*.png"))
    batches = list(store.batches(backbone, paths))

    inside, encode = [], backbone.encode

    def timed(*arguments):
        began = time.perf_counter()
        found = encode(*arguments)
        inside[-1] += time.perf_counter() - began
        return found

    def from_files():
        inside.append(0.0)
        backbone.encode = timed
        with tempfile.TemporaryDirectory() as cache:
            store.FOLDER = Path(cache)
            took = seconds(lambda: list(store.encode_batches(backbone, paths)))
        backbone.encode, inside[-1] = encode, inside[-1] / took
        return took

    contestants = {
        "from files": from_files,
        "model alone": lambda: seconds(lambda: [encode(batch) for batch in batches]),
    }
    task = "files to embeddings"
    yield from take_turns(task, len(paths), contestants)
    share = float(np.median(inside[1:]))
    yield {"task": task, "number": len(paths), "who": "model at work", "value": share, "unit": "share", "runs": RUNS}
    store.FOLDER = kept


def draw(table):
    """One figure: time an image over the batch size, and time of AUPRO over the number of maps."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for ax, task, per, x in (
        (axes[0], "images", True, "images in a batch"),
        (axes[1], "aupro", False, "maps of 256 x 256"),
    ):
        rows = table[table.task == task]
        for who, group in rows.groupby("who", sort=False):
            dashed = "--" if "forward" in who else "-"
            ax.plot(group.number, group.value / (group.number if per else 1), dashed, marker="o", ms=4, label=who)
        ax.set(yscale="log", xlabel=x, ylabel="seconds an image" if per else "seconds", xticks=sorted(set(rows.number)))
        ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes[0].set_title("Image to score and map, ViT-B-16-plus-240", fontsize=10)
    axes[1].set_title("AUPRO", fontsize=10)
    figure.tight_layout()
    return figure


def ratios(table):
    """What the README says of a table of results, as lines of Markdown."""

    def between(task, slow, fast):
        slow, fast = (
            table[(table.task == task) & (table.who == who)].set_index("number").value for who in (slow, fast)
        )
        found = (slow / fast).to_numpy()
        low, high = (f"{v:.2f}" if found.max() < 2 else f"{v:.1f}" for v in (found.min(), found.max()))
        return low if low == high else f"{low} to {high}"

    def single(task):
        return table[table.task == task].set_index("unit").value

    memory, whole = table[table.task == "peak memory of a benchmark"].value, single("pixel metrics of a set")
    f32, bf16, peer = "float32", "bfloat16", "anomalib winclip, "
    times = [
        ("alfa / a forward pass of its backbone, float32", "images", f"alfa, {f32}", f"forward pass, {f32}"),
        ("alfa / a forward pass of its backbone, bfloat16", "images", f"alfa, {bf16}", f"forward pass, {bf16}"),
        ("anomalib's WinCLIP / alfa, both float32", "images", peer + f32, f"alfa, {f32}"),
        ("anomalib's WinCLIP, float32 / alfa, bfloat16", "images", peer + f32, f"alfa, {bf16}"),
        ("anomalib's WinCLIP / alfa, both bfloat16", "images", peer + bf16, f"alfa, {bf16}"),
        ("anomalib's WinCLIP / winclip, both float32", "images", peer + f32, f"winclip, {f32}"),
        ("anomalib's WinCLIP, float32 / winclip, bfloat16", "images", peer + f32, f"winclip, {bf16}"),
        ("anomalib's WinCLIP / winclip, both bfloat16", "images", peer + bf16, f"winclip, {bf16}"),
        ("anomalib's AUPRO / ours, exact", "aupro", "anomalib", "ours, exact"),
        ("a plain loop over 200 thresholds / our exact AUPRO", "aupro", "200 thresholds", "ours, exact"),
        ("scikit-learn's pixel AUROC, AP, F1-max / ours and AUPRO", "pixel auroc, ap, f1max", "scikit-learn", "ours (and aupro)"),
        ("files of 1024 x 1024 to kept embeddings / the model alone", "files to embeddings", "from files", "model alone"),
    ]  # fmt: skip
    lines = [(what, between(*of)) for what, *of in times] + [
        (
            f"peak memory of alfa and clip-ac in `mini`, {IMAGES[1]} images / {IMAGES[0]}",
            f"{memory.iloc[-1] / memory.iloc[0]:.2f}",
        ),
        ("the model's share of the time from files to embeddings", f"{single('files to embeddings')['share']:.0%}"),
        (f"pixel metrics of {SET} maps of 240 x 240, whole process", f"{whole['s']:.1f} s, {whole['GB']:.1f} GB"),
        ("largest change of an AUROC by bfloat16, MiniAD seen test, `mini`", f"{single('AUROC, bfloat16')['']:.4f}"),
    ]
    return "".join(f"| {what} | {value} |\n" for what, value in [("this / that", "ratio"), ("---", "---"), *lines])


def publish(table, readme):
    """Put ``ratios`` between the two markers of the README."""
    start, end = "<!-- performance -->\n", "<!-- /performance -->"
    before, rest = readme.read_text().split(start)
    with replacing(readme) as temporary:
        temporary.write_text(f"{before}{start}{ratios(table)}{end}{rest.split(end)[1]}")


def main(python):
    torch.set_num_threads(2)
    rows = []
    with tempfile.TemporaryDirectory() as name, tqdm(total=len(BATCHES) + 2 * len(MAPS) + 5) as progress:
        folder = Path(name)

        def add(new):
            rows.extend(new)
            progress.update()

        with Peer(python, folder) as peer:
            for number in BATCHES:
                add(images(peer, number))
            for number in MAPS:
                add(region_overlap(peer, folder, number))
                add(pixels(number))
        took, peak = child("whole_set")
        one = {"task": "pixel metrics of a set", "number": SET, "who": "ours", "runs": 1}
        add([one | {"value": took, "unit": "s"}, one | {"value": peak, "unit": "GB"}])
        write_pictures(folder / "set", max(IMAGES))
        for number in IMAGES:
            _, peak = child("benchmark_of", folder / "set", number)
            row = {"task": "peak memory of a benchmark", "number": number, "who": "ours", "value": peak, "unit": "GB"}
            add([row | {"runs": 1}])
        (folder / "large").mkdir()
        add(pipeline(folder / "large"))
        off = {
            "task": "AUROC, bfloat16",
            "number": 9,
            "who": "alfa, largest difference",
            "unit": "",
            "runs": 1,
        }
        add([off | {"value": precision()}])
    table = pd.DataFrame(rows, columns=["task", "number", "who", "value", "unit", "runs"])
    tables.save_table(table, ROOT / "results", "performance")
    with replacing(ROOT / "results" / "performance.png") as temporary:
        draw(table).savefig(temporary, dpi=150, format="png")
    publish(table, ROOT / "README.md")
    print(table.to_string(index=False))


if __name__ == "__main__":
    be_child(*sys.argv[2:]) if sys.argv[1] == "--child" else main(sys.argv[1])
