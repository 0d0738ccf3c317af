"""Embeddings that are kept: equal, complete, bounded, and safe for two processes."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from zsadlib import datasets
from zsadlib.cli import app
from zsadlib.files import DAY, clear_left_over, left_over
from zsadlib.models import store
from zsadlib.models.encoded import Encoded, layers, values, windows
from zsadlib.study import methods, units


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "FOLDER", tmp_path / "store")
    return store.FOLDER


@pytest.fixture
def paths(tiny_category):
    return [s.path for s in datasets.read_category(tiny_category).test][:5]


def same(a, b, tolerance=1e-5):
    tensors = [{"image": e.image, "patches": e.patches} | e.extra for e in (a, b)]
    return set(tensors[0]) == set(tensors[1]) and all(
        x.shape == tensors[1][key].shape and torch.allclose(x, tensors[1][key], atol=tolerance)
        for key, x in tensors[0].items()
    )


def test_what_is_kept_is_what_was_computed_and_is_not_computed_again(folder, paths, backbone, monkeypatch):
    needs = (*windows(2), *layers(1), *values(2))
    direct = Encoded.join(backbone.encode(b, needs) for b in store.batches(backbone, paths))
    first = store.encode(backbone, paths, needs)
    assert same(direct, first)
    monkeypatch.setattr(type(backbone), "encode", None)
    assert same(store.encode(backbone, paths, needs), first, 0)
    assert same(store.encode(backbone, paths[::-1])[[4, 3, 2, 1, 0]], Encoded(first.image, first.patches), 0)


def test_only_what_is_missing_is_computed(folder, paths, backbone, monkeypatch):
    store.encode(backbone, paths)
    original, asked = type(backbone).encode, []

    def watched(self, batch, needs=()):
        asked.append((len(batch), tuple(needs)))
        return original(self, batch, needs)

    monkeypatch.setattr(type(backbone), "encode", watched)
    before = store.encode(backbone, paths, windows(2))
    assert asked == [(5, windows(2))]
    victim = next(folder.rglob("*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:50])  # cut short, as by a full disk
    asked.clear()
    again = store.encode(backbone, paths, windows(2))
    assert [number for number, *_ in asked] == [5] and same(again, before, 0)  # its batch as a whole: the same bits
    store.encode(backbone, paths, windows(2))
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
    for item in store.ahead(lambda i: log.append(("read", i)) or i, range(6)):
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
    reading = store.ahead(lambda i: seen.append(i) or i, range(100))
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
        "import sys, pathlib; from zsadlib.models import store, loading; store.FOLDER = pathlib.Path(sys.argv[1]);"
        "paths = [pathlib.Path(p) for p in sys.argv[2:]];"
        "print(store.encode(loading.load_backbone(), paths, [('windows', 2)]).image.sum().item())"
    )
    command = [sys.executable, "-c", code, str(folder), *map(str, paths)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    sums = [float(run.communicate(timeout=300)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0] and sums[0] == pytest.approx(sums[1], abs=1e-4)
    assert store.size()[1] == 3 * len(paths) and not list(folder.rglob(".*-*"))


def test_the_cache_is_told_and_cleared(folder, paths, backbone, monkeypatch, tmp_path):
    monkeypatch.setattr(units, "UNITS", tmp_path / "units")
    monkeypatch.setattr(methods, "FITTED", tmp_path / "fitted")
    for kept in ("units/ab/unit.json", "units/ab/.half-written.json", "fitted/one.safetensors"):
        (tmp_path / kept).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / kept).touch()
    store.encode(backbone, paths)
    run = CliRunner().invoke
    assert "10 embeddings" in run(app, ["cache", "info"]).output
    assert "1 results of units" in run(app, ["cache", "info"]).output
    assert run(app, ["cache", "clear"]).exit_code == 0 and not folder.exists() and not methods.FITTED.exists()
    assert "0 embeddings" in run(app, ["cache", "info"]).output


def _old(path, content=b"half"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    for aged in (path, path.parent):
        os.utime(aged, (time.time() - 2 * DAY,) * 2)
    return path


def test_what_killed_processes_left_is_counted_and_trimmed(folder, paths, backbone):
    store.encode(backbone, paths)
    taken, number = store.size()
    left = _old(folder / "ab" / f".{'c' * 64}-k_3x9a0z.safetensors", bytes(1000))
    assert store.size() == (taken + 1000, number)
    at_work = folder / "ab" / f".{'d' * 64}-k_3x9a0z.safetensors"
    at_work.write_bytes(bytes(500))  # by a process that lives
    assert store.size() == (taken + 1000, number)
    store.trim()
    assert not left.exists() and at_work.exists() and store.size() == (taken, number)


def test_a_killed_process_leaves_a_file_that_is_known_as_left_over(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from zsadlib.files import replacing\n"
        "with replacing(Path(sys.argv[1]) / 'one.json') as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    (left,) = tmp_path.iterdir()
    assert left_over(tmp_path) == []  # it may be at work
    os.utime(left, (1, 1))
    assert left_over(tmp_path) == [(4, left)]
    clear_left_over(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_half_made_folders_are_left_over_as_a_whole_and_nothing_else_is(tmp_path):
    work = tempfile.mkdtemp(prefix=".textile-", dir=tmp_path)
    inside = _old(Path(work) / "test" / "good" / "000.png")
    _old(Path(work) / "test" / ".001-abcdefgh.png")
    alive = Path(tempfile.mkdtemp(prefix=".visa-", dir=tmp_path)) / "new"
    alive.touch()
    kept = [
        _old(tmp_path / name) for name in (".git-ignored", "miniad/plate-abcdefgh/000.png", ".hidden", "miniad/a-b.png")
    ]
    (tmp_path / ".link-abcdefgh").symlink_to(tmp_path / "miniad")
    for path in (tmp_path / work / "test", tmp_path / work, alive.parent):
        os.utime(path, (1, 1))
    assert left_over(tmp_path) == [(8, Path(work))]
    clear_left_over(tmp_path)
    assert not inside.exists() and not Path(work).exists() and alive.exists() and all(path.exists() for path in kept)
    assert (tmp_path / ".link-abcdefgh").is_symlink()
