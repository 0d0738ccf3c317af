"""Official data sets: fetched, checked and read, from archives in their official formats made of MiniAD drawings."""

import contextlib
import functools
import http.server
import io
import re
import shutil
import tarfile
import threading

import numpy as np
import pandas as pd
import pytest
from conftest import write_category
from PIL import Image
from typer.testing import CliRunner

from zsadlib import datasets, profiles, study
from zsadlib.cli import app
from zsadlib.datasets import catalogue, downloads, official
from zsadlib.provenance import sha256
from zsadlib.study import units as kept_units


def write_visa(root, names=("candle", "pcb1"), train=2, good=3, bad=3):
    """A small VisA: JPG images, palette PNG masks with small indices, split_csv/1cls.csv."""
    lines = ["object,split,label,image,mask"]
    for name in names:
        work = write_category(root / ".work" / name, "bolt", ("crack",), good, bad, train)
        data = root / name / "Data"
        for part in ("Images/Normal", "Images/Anomaly", "Masks/Anomaly"):
            (data / part).mkdir(parents=True)
        for i, path in enumerate([*sorted((work / "train/good").iterdir()), *sorted((work / "test/good").iterdir())]):
            Image.open(path).save(data / "Images/Normal" / f"{i:04d}.JPG", format="JPEG", quality=92)
            lines.append(f"{name},{'train' if i < train else 'test'},normal,{name}/Data/Images/Normal/{i:04d}.JPG,")
        for i, path in enumerate(sorted((work / "test/crack").iterdir())):
            Image.open(path).save(data / "Images/Anomaly" / f"{i:03d}.JPG", format="JPEG", quality=92)
            grey = np.asarray(Image.open(work / "ground_truth/crack" / f"{path.stem}_mask.png")) > 0
            mask = Image.fromarray(np.where(grey, 1 + i, 0).astype(np.uint8), "L").convert("P")
            mask.putpalette([0, 0, 0] + [7 * j % 90 for j in range(3, 768)])
            mask = Image.fromarray(np.where(grey, 1 + i, 0).astype(np.uint8)) if i == 0 else mask  # both occur
            mask.save(data / "Masks/Anomaly" / f"{i:03d}.png")
            image, truth = (
                f"{name}/Data/{part}/Anomaly/{i:03d}.{end}" for part, end in (("Images", "JPG"), ("Masks", "png"))
            )
            lines.append(f"{name},test,anomaly,{image},{truth}")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    shutil.rmtree(root / ".work")
    return root


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """(source, folder, archive) by name: both sets, tiny, with counts and hashes of their own."""
    root, found = tmp_path_factory.mktemp("official"), {}
    mvtec = root / "mvtec-ad"
    for name in ("metal_nut", "screw"):
        write_category(mvtec / name, "bolt", ("bent", "scratch_head"), drawn=("bend", "scratch"))
    (mvtec / "license.txt").write_text("CC BY-NC-SA 4.0")
    visa = write_visa(root / "visa")
    for folder, mode, counts in ((mvtec, "xz", (2, 4, 6)), (visa, "", (2, 3, 3))):
        archive = root / f"{folder.name}.tar{'.' if mode else ''}{mode}"
        with tarfile.open(archive, f"w:{mode}") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
        names = [p.name for p in sorted(folder.iterdir()) if p.is_dir() and p.name != "split_csv"]
        source = official.Source(
            folder.name, folder.name, archive.name, sha256(archive), ("http://127.0.0.1:9/nothing",), "a licence",
            "http://licence", dict.fromkeys(names, counts),
        )  # fmt: skip
        found[folder.name] = source, folder, archive
    return found


def with_(source, **changes):
    return official.Source(**{**{k: getattr(source, k) for k in source.__dataclass_fields__}, **changes})


# -------------------------------------------------------------------------------------- through fetch, check, benchmark


@pytest.mark.parametrize("name", ["mvtec-ad", "visa"])
def test_an_official_archive_goes_through_fetch_check_and_the_benchmark(name, sets, tmp_path, monkeypatch, backbone):
    source, _, archive = sets[name]
    monkeypatch.setitem(official.SOURCES, name, source)
    monkeypatch.setattr("zsadlib.files.DATA", tmp_path)
    monkeypatch.setattr(catalogue, "DATA", tmp_path)
    monkeypatch.setattr(kept_units, "UNITS", tmp_path / "units")
    run = CliRunner().invoke
    with pytest.raises(ValueError, match=f"zsad data fetch {name}"):
        datasets.load_dataset(name)
    refused = run(app, ["data", "fetch", name, "--path", str(archive)])
    assert refused.exit_code == 2 and "--accept-licence" in refused.output and not list(tmp_path.iterdir())
    fetched = run(app, ["data", "fetch", name, "--path", str(archive), "--accept-licence"])
    assert fetched.exit_code == 0, fetched.output
    checked = run(app, ["data", "check", name])
    assert checked.exit_code == 0 and "complete and readable" in checked.output, checked.output
    again = run(app, ["data", "fetch", name, "--path", str(archive), "--accept-licence"])
    assert again.exit_code == 2 and "is there already" in again.output

    settings = profiles.load_profile("mini").model_copy(update={"bank": "static"})
    categories = datasets.load_split([name])
    units = [*study.zero_shot(settings), study.Unit("patchcore", 1), study.Unit("winclip+", 2)]
    table = study.evaluate(settings, backbone, categories, units)
    assert list(table) == study.COLUMNS and len(table) == len(units) * 2 * 7 and table.value.between(0, 1).all()
    assert set(table.dataset) == {"MVTec AD" if name == "mvtec-ad" else "VisA"}
    assert set(table.sees) == {
        "nothing", "normals of the object", "pictures of other categories", "the unlabelled test set",
        "pictures of other categories + labels of other categories",
    }  # fmt: skip
    assert set(table.category) == ({"metal nut", "screw"} if name == "mvtec-ad" else {"candle", "pcb1"})


def test_both_sets_go_through_the_benchmark_notebooks(sets, tmp_path, monkeypatch):
    data, run = tmp_path / "data", CliRunner().invoke
    datasets.load_miniad("seen_test")  # is drawn once
    data.mkdir()
    (data / "miniad").symlink_to(catalogue.DATA / "miniad")
    monkeypatch.setattr("zsadlib.files.DATA", data)
    for name, (source, _, archive) in sets.items():
        monkeypatch.setitem(official.SOURCES, name, source)
        fetched = run(app, ["data", "fetch", name, "--path", str(archive), "--accept-licence"])
        assert fetched.exit_code == 0, fetched.output
    changes = {
        "seen": (),
        "test": tuple(sets),
        "development": ("miniad-few",),
        "bank": "static",
        "shots": (1, 2),
        "draws": 2,
    }
    plan, out = tmp_path / "official.json", tmp_path / "out"
    plan.write_text(profiles.load_profile("mini").model_copy(update=changes).model_dump_json())
    monkeypatch.setenv("ZSAD_DATA", str(data))  # for the kernels
    arguments = ["study", "--profile", str(plan), "--only", "05", "--only", "06", "--results", str(out)]
    result = run(app, arguments)
    assert result.exit_code == 0, result.output
    for name, index in (("zero_shot_means", 4), ("few_shot_means", 3 * 2)):
        table = pd.read_csv(out / "tables" / f"{name}.csv", header=[0, 1], index_col=[0, 1, 2, 3])
        assert {"MVTec AD", "VisA"} <= set(table.index.get_level_values(0)), table
        ours = table.loc[["MVTec AD", "VisA"]].xs("ours", axis=1, level=1)
        assert len(ours) >= 2 * index and ours.notna().all(axis=None) and ours.stack().between(0, 100).all()
        assert "VisA" in (out / "tables" / f"{name}.tex").read_text()


def test_visa_masks_are_palettes_and_its_nouns_are_words(sets):
    _, folder, _ = sets["visa"]
    candle, board = official.read_visa(folder)
    assert (candle.noun, board.name, board.noun) == ("candle", "pcb1", "printed circuit board")
    assert (len(candle.train), candle.labels.tolist()) == (2, [0, 0, 0, 1, 1, 1])
    for sample in candle.test[3:]:
        raw = np.asarray(Image.open(sample.mask_path))
        assert 0 < raw.max() < 10
        assert datasets.load_mask(sample, raw.shape[0]).sum() == (raw > 0).sum()


def test_the_published_counts_are_those_of_the_papers():
    totals = {name: np.array(list(s.counts.values())).sum(0) for name, s in official.SOURCES.items()}
    assert totals["mvtec-ad"].tolist() == [3629, 467, 1258] and len(official.SOURCES["mvtec-ad"].counts) == 15
    assert totals["mvtec-ad"][1:].sum() == 1725
    assert totals["visa"].tolist() == [8659, 962, 1200] and totals["visa"][1:].sum() == 2162


def test_check_names_what_is_missing_and_what_is_broken(sets, tmp_path):
    source, folder, _ = sets["mvtec-ad"]
    broken = shutil.copytree(folder, tmp_path / "set")
    next((broken / "screw/train/good").iterdir()).unlink()
    (broken / "screw/test/good/00.png").write_bytes(b"no picture")
    (broken / "metal_nut/ground_truth/bent/00_mask.png").unlink()
    table, problems = official.check(source, broken, n_jobs=1)
    text = "\n".join(problems)
    assert "screw: 1 images in train good, 2 are published" in text and "00.png cannot be read" in text
    assert "00_mask.png is missing" in text and table.set_index("category").loc["screw", "train good"] == 1
    source, folder, _ = sets["visa"]
    broken = shutil.copytree(folder, tmp_path / "visa")
    (broken / "pcb1/Data/Images/Normal/0003.JPG").unlink()
    table, problems = official.check(source, broken, n_jobs=1)
    assert any("0003.JPG, which is missing" in p for p in problems)
    assert table.set_index("category")["test good"].to_dict() == {
        "candle": 3,
        "pcb1": 0,
    }  # the others are still counted
    with pytest.raises(ValueError, match="does not exist"):
        official.check(source, tmp_path / "nowhere")


def test_a_folder_of_the_users_is_linked_and_a_wrong_one_refused(sets, tmp_path):
    source, folder, archive = sets["mvtec-ad"]
    target = official.fetch(source, folder.parent / "mvtec-ad", True, tmp_path)
    assert target.is_symlink() and target.resolve() == folder.resolve()
    with pytest.raises(ValueError, match="does not hold"):
        official.fetch(with_(source, name="other"), folder / "screw", True, tmp_path)
    with pytest.raises(ValueError, match="is not the published"):
        official.fetch(with_(source, name="other", sha256="0" * 64), archive, True, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mvtec-ad"]


# -------------------------------------------------------------------------------------------------------------- mirrors


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves ``payload``; the first answer breaks off in the middle; ``Range`` is understood if ``ranges``."""

    payload, ranges, asked = b"", True, []

    def do_GET(self):
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1]) if self.ranges else 0
        self.asked.append(start)
        body = self.payload[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if len(self.asked) == 1 else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror():
    handler = type("Handler", (Mirror,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/a.tar", handler
    server.shutdown()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_goes_on_where_it_was(ranges, mirror, sets, tmp_path):
    address, handler = mirror
    source, _, archive = sets["visa"]
    handler.payload, handler.ranges = archive.read_bytes(), ranges
    source = with_(source, mirrors=(address,))
    with pytest.raises(ValueError, match="--path FILE"):
        downloads.download(source, tmp_path)
    kept = (tmp_path / f"{source.archive}.0.part").stat().st_size
    assert 0 < kept < len(handler.payload)
    assert sha256(downloads.download(source, tmp_path)) == source.sha256
    assert handler.asked == [0, kept if ranges else 0] and [p.name for p in tmp_path.iterdir()] == [source.archive]


def test_the_next_mirror_is_asked_when_one_lies_and_nothing_wrong_is_kept(mirror, sets, tmp_path):
    address, handler = mirror
    source, _, _ = sets["visa"]
    handler.payload, handler.asked[:] = b"not the archive", [0]
    with pytest.raises(ValueError, match="sent a file with sha256.*127.0.0.1:9/nothing: ConnectionError"):
        downloads.download(with_(source, mirrors=(address, *source.mirrors)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_that_lies_does_not_spoil_what_another_gave(mirror, sets, tmp_path):
    address, handler = mirror
    source, _, archive = sets["visa"]
    begun = tmp_path / f"{source.archive}.0.part"
    begun.write_bytes(archive.read_bytes()[:5000])
    handler.payload, handler.asked[:], handler.ranges = b"<html>gone</html>", [0], False
    with pytest.raises(ValueError, match="ConnectionError.*sent a file"):
        downloads.download(with_(source, mirrors=(*source.mirrors, address)), tmp_path)
    assert begun.stat().st_size == 5000
    handler.payload, handler.ranges = archive.read_bytes(), True
    assert sha256(downloads.download(with_(source, mirrors=(address,)), tmp_path)) == source.sha256
    assert handler.asked[-1] == 5000 and [p.name for p in tmp_path.iterdir()] == [source.archive]


class Endless(http.server.BaseHTTPRequestHandler):
    """Says nothing (or ``headers``) of the length of what it sends, and does not stop by itself."""

    headers_sent, sent, encodings = {}, 0, []

    def do_GET(self):
        self.encodings.append(self.headers.get("Accept-Encoding"))
        self.send_response(200)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # who downloads hangs up
            while type(self).sent < 1e9:
                type(self).sent += self.wfile.write(bytes(1 << 16))

    def log_message(self, *_):
        pass


@pytest.fixture
def endless():
    handler = type("Handler", (Endless,), {"encodings": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/a.tar", handler
    server.shutdown()


LIES = {
    "no length": {}, "a small length": {"Content-Length": "1000"}, "a huge length": {"Content-Length": str(10**15)},
    "no number": {"Content-Length": "many"}, "encoded": {"Content-Encoding": "gzip"},
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_mirror_that_does_not_stop_is_stopped_and_the_next_one_is_asked(lie, endless, mirror, sets, tmp_path):
    address, handler = endless
    handler.headers_sent = LIES[lie]
    good, whole = mirror
    source, _, archive = sets["visa"]
    whole.payload, whole.asked[:] = archive.read_bytes(), [0]
    source = with_(source, mirrors=(address, good), most_bytes=8_000_000)
    assert sha256(downloads.download(source, tmp_path)) == source.sha256
    assert handler.sent < 50e6 and handler.encodings == ["identity"]
    assert [p.name for p in tmp_path.iterdir()] == [source.archive]


def test_a_download_leaves_room_on_the_disk_while_it_writes(endless, sets, tmp_path, monkeypatch):
    """Nobody said how much would come: so it is looked at as it comes."""
    address, handler = endless
    free = iter([*[10**9] * 40, 10**8])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("usage", (), {"free": next(free, 10**8)})())
    with pytest.raises(ValueError, match="says no length and sends more than the disk holds"):
        downloads.download(with_(sets["visa"][0], mirrors=(address,)), tmp_path)
    assert handler.sent < 50e6 and list(tmp_path.iterdir()) == []


def test_a_disk_that_others_fill_stops_a_download_that_can_go_on_later(mirror, sets, tmp_path, monkeypatch):
    address, handler = mirror
    source, _, archive = sets["visa"]
    handler.payload, handler.asked[:] = archive.read_bytes(), [0]
    free = iter([*[10**9] * 3, 10**8])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("usage", (), {"free": next(free, 10**8)})())
    with pytest.raises(ValueError, match="make room first"):
        downloads.download(with_(source, mirrors=(address,)), tmp_path)
    monkeypatch.undo()
    assert 0 < (tmp_path / f"{source.archive}.0.part").stat().st_size < len(handler.payload)
    assert sha256(downloads.download(with_(source, mirrors=(address,)), tmp_path)) == source.sha256
    assert handler.asked[-1] > 0


def test_a_full_disk_is_said_before_it_is_full(sets, tmp_path, monkeypatch):
    source, _, archive = sets["visa"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("usage", (), {"free": 10})())
    with pytest.raises(ValueError, match="make room first"):
        official.fetch(source, archive, True, tmp_path)
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------------- attacks


def _member(name, kind=tarfile.REGTYPE, size=4, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size if kind == tarfile.REGTYPE else 0
    return member


ATTACKS = {
    "an absolute path": [_member("/tmp/zsad-attack")],
    "a way out": [_member("screw/../../zsad-attack")],
    "a backslash": [_member("..\\zsad-attack")],
    "a symbolic link": [_member("screw", tarfile.SYMTYPE, link="/etc"), _member("screw/passwd")],
    "a hard link": [_member("passwd", tarfile.LNKTYPE, link="/etc/passwd")],
    "a device": [_member("null", tarfile.CHRTYPE)],
    "a pipe": [_member("pipe", tarfile.FIFOTYPE)],
    "too large": [_member("big", size=3_000_000)],
    "too many files": [_member(f"{i}") for i in range(30)],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_in_an_archive_is_refused_and_leaves_nothing(attack, sets, tmp_path):
    source, outside = sets["mvtec-ad"][0], tmp_path / "inside"
    archive = tmp_path / "attack.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        for member in [_member("first.txt"), *ATTACKS[attack]]:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    limits = {"most_bytes": 2_000_000, "most_files": 20, "sha256": sha256(archive)}
    with pytest.raises(ValueError, match="outside its folder|neither a plain file nor a folder|it is refused"):
        official.fetch(with_(source, **limits), archive, True, outside)
    assert list(outside.iterdir()) == [] and sorted(p.name for p in tmp_path.iterdir()) == ["attack.tar.xz", "inside"]


@pytest.mark.parametrize("cut", [60, 2000])
def test_a_damaged_archive_is_refused_and_leaves_nothing(cut, sets, tmp_path):
    source, _, archive = sets["mvtec-ad"]
    short = tmp_path / "short.tar.xz"
    short.write_bytes(archive.read_bytes()[:-cut])
    with pytest.raises(ValueError, match="cannot be unpacked|does not hold"):
        official.fetch(with_(source, sha256=sha256(short)), short, True, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_stop_in_the_middle_of_unpacking_leaves_nothing(sets, tmp_path, monkeypatch):
    source, _, archive = sets["mvtec-ad"]
    original, count = tarfile.TarFile.extract, iter(range(5))

    @functools.wraps(original)
    def stopped(*args, **kwargs):
        if next(count, None) is None:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(tarfile.TarFile, "extract", stopped)
    with pytest.raises(KeyboardInterrupt):
        official.fetch(source, archive, True, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_visa_is_what_counts(sets, tmp_path):
    """An image that the official split does not name is not read."""
    _, folder, _ = sets["visa"]
    more = shutil.copytree(folder, tmp_path / "visa")
    shutil.copy(more / "candle/Data/Images/Normal/0000.JPG", more / "candle/Data/Images/Normal/9999.JPG")
    table = pd.read_csv(more / "split_csv" / "1cls.csv")
    assert sum(len(c.train) + len(c.test) for c in official.read_visa(more)) == len(table)
