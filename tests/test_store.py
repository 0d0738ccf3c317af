"""Embeddings that are kept: equal, complete, bounded, and safe for two processes."""

import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from zsadlib import benchmark, cli, datasets, store
from zsadlib.backbones import Encoded


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "FOLDER", tmp_path / "store")
    return store.FOLDER


@pytest.fixture
def paths(tiny_category):
    return [s.path for s in datasets.read_category(tiny_category).test][:5]


def same(a, b, tolerance=1e-5):
    tensors = [[e.image, e.patches, *e.windows.values(), *e.layers.values(), *e.values.values()] for e in (a, b)]
    return len(tensors[0]) == len(tensors[1]) and all(
        x.shape == y.shape and torch.allclose(x, y, atol=tolerance) for x, y in zip(*tensors, strict=True)
    )


def test_what_is_kept_is_what_was_computed_and_is_not_computed_again(folder, paths, backbone, monkeypatch):
    direct = Encoded.join(backbone.encode(b, (2,), (1,), (2,)) for b in benchmark.batches(backbone, paths))
    first = store.encode(backbone, paths, (2,), (1,), (2,))
    assert same(direct, first)
    monkeypatch.setattr(type(backbone), "encode", None)
    assert same(store.encode(backbone, paths, (2,), (1,), (2,)), first, 0)
    assert same(store.encode(backbone, paths[::-1])[[4, 3, 2, 1, 0]], Encoded(first.image, first.patches), 0)


def test_only_what_is_missing_is_computed(folder, paths, backbone, monkeypatch):
    store.encode(backbone, paths)
    original, asked = type(backbone).encode, []

    def watched(self, batch, *extra):
        asked.append((len(batch), *extra))
        return original(self, batch, *extra)

    monkeypatch.setattr(type(backbone), "encode", watched)
    before = store.encode(backbone, paths, (2,))
    assert asked == [(5, (2,), (), ())]
    victim = next(folder.rglob("*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:50])  # cut short, as by a full disk
    asked.clear()
    again = store.encode(backbone, paths, (2,))
    assert [number for number, *_ in asked] == [5] and same(again, before, 0)  # its batch as a whole: the same bits
    store.encode(backbone, paths, (2,))
    assert len(asked) == 1


def test_sentences_are_kept_too(folder, backbone, monkeypatch):
    texts = ["a photo of a bolt", "a photo of a bent bolt", "a photo of a bolt"]
    direct = backbone.encode_text(texts)
    first = store.encode_text(backbone, texts)
    assert torch.allclose(direct, first, atol=1e-6) and store.size()[1] == 1
    monkeypatch.setattr(type(backbone), "encode_text", None)
    assert store.encode_text(backbone, texts).equal(first)
    assert torch.allclose(F.normalize(store.encode_text(backbone, texts, normalize=False), dim=-1), first)


def test_images_are_read_while_the_model_works(monkeypatch):
    log = []
    for item in store._ahead(lambda i: log.append(("read", i)) or i, range(6)):
        time.sleep(0.02)
        log.append(("used", item))
    assert [i for what, i in log if what == "used"] == list(range(6))
    assert all(log.index(("read", i + 1)) < log.index(("used", i)) for i in range(5))
    most = max(
        sum(w == "read" for w, _ in log[: k + 1]) - sum(w == "used" for w, _ in log[: k + 1]) for k in range(len(log))
    )
    assert most <= 4  # and not further ahead than memory allows


def test_who_stops_reading_ends_the_reading(folder, paths, backbone):
    seen = []
    reading = store._ahead(lambda i: seen.append(i) or i, range(100))
    assert next(reading) == 0
    reading.close()
    assert len(seen) <= 4
    with pytest.raises(FileNotFoundError):
        store.encode(backbone, [*paths, paths[0].with_name("gone.png")])


def test_other_bytes_or_other_weights_are_another_embedding(folder, paths, backbone, tmp_path, monkeypatch):
    copy = tmp_path / "copy.png"
    shutil.copy(paths[0], copy)
    before = store.encode(backbone, [copy]).image
    count = store.size()[1]
    assert store.encode(backbone, paths[:1]).image.equal(before) and store.size()[1] == count  # same bytes elsewhere
    shutil.copy(paths[-1], copy)
    os.utime(copy, (1, 1))
    assert not store.encode(backbone, [copy]).image.equal(before)
    monkeypatch.setitem(backbone.__dict__, "fingerprint", "other weights")
    store.encode(backbone, paths[:1])
    assert store.size()[1] == count + 4


def test_the_least_recently_used_go_first(folder, paths, backbone):
    store.encode(backbone, paths)
    files = sorted(folder.rglob("*.safetensors"))
    for age, file in enumerate(files):
        os.utime(file, (1000 - age, 1000 - age))
    store.trim(sum(file.stat().st_size for file in files[:3]) / 1e9)
    assert sorted(folder.rglob("*.safetensors")) == files[:3]
    (folder / "ab").mkdir(exist_ok=True)
    (folder / "ab" / ".half-written.safetensors").touch()  # another process at work
    store.encode(backbone, paths)
    assert store.size()[1] == 10


def test_two_processes_share_the_folder(folder, paths, backbone, tmp_path):
    code = (
        "import sys, pathlib; from zsadlib import store, backbones; store.FOLDER = pathlib.Path(sys.argv[1]);"
        "print(store.encode(backbones.load_backbone(), [pathlib.Path(p) for p in sys.argv[2:]], (2,)).image.sum().item())"
    )
    command = [sys.executable, "-c", code, str(folder), *map(str, paths)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    sums = [float(run.communicate(timeout=300)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0] and sums[0] == pytest.approx(sums[1], abs=1e-4)
    assert store.size()[1] == 3 * len(paths) and not list(folder.rglob(".*-*"))


def test_the_cache_is_told_and_cleared(folder, paths, backbone, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "UNITS", tmp_path / "units")
    monkeypatch.setattr(benchmark, "ALIGNERS", tmp_path / "aligners")
    for kept in ("units/ab/unit.json", "units/ab/.half-written.json", "aligners/one.safetensors"):
        (tmp_path / kept).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / kept).touch()
    store.encode(backbone, paths)
    run = CliRunner().invoke
    assert "10 embeddings" in run(cli.app, ["cache", "info"]).output
    assert "1 results of units" in run(cli.app, ["cache", "info"]).output
    assert run(cli.app, ["cache", "clear"]).exit_code == 0 and not folder.exists() and not benchmark.ALIGNERS.exists()
    assert "0 embeddings" in run(cli.app, ["cache", "info"]).output
