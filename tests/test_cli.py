"""The command line: what it writes, what it says, and its exit codes."""

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_category
from PIL import Image
from typer.testing import CliRunner

from zsadlib import Inspector, __version__, datasets, study
from zsadlib.cli import app
from zsadlib.cli.score import write_table
from zsadlib.datasets import miniad
from zsadlib.detectors import METHODS
from zsadlib.evaluation import verdict
from zsadlib.files import ROOT, replacing
from zsadlib.inspection import inspector as inspection
from zsadlib.inspection.photographs import find_files
from zsadlib.profiles import load_profile
from zsadlib.prompts import banks

ZSAD = os.path.join(os.path.dirname(sys.executable), "zsad")
run = CliRunner().invoke


def score(*arguments, code=0):
    """``zsad score`` for bolts with one look: its result."""
    result = run(app, ["score", *map(str, arguments), "--category", "bolt", "--views", "whole"])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def bolts(tmp_path_factory):
    root = write_category(tmp_path_factory.mktemp("bolts") / "bolt", kinds=("crack",), good=6, bad=6, train=8)
    return {"normal": root / "train" / "good", "test": root / "test"}


def test_broken_files_have_their_errors_in_their_rows(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (80, 60, 3), np.uint8)
    Image.fromarray(noise).save(photos / "whole.jpg")
    (photos / "cut.jpg").write_bytes((photos / "whole.jpg").read_bytes()[:-900])
    (photos / "text.jpg").write_text("hello")
    (photos / "a.png").mkdir()
    (photos / "._a.jpg").write_bytes(b"\x00\x05\x16\x07")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(photos / "deep.png")
    out, maps = tmp_path / "scores.csv", tmp_path / "m"
    score(photos, "--out", out, "--maps", maps, code=1)
    table = pd.read_csv(out).set_index(pd.read_csv(out).path.map(lambda p: p.rsplit("/", 1)[-1]))
    assert list(table.columns) == ["path", "image_score", "verdict", "threshold", "error"]
    good = {"deep.png", "whole.jpg"}
    assert set(table.index) == good | {"cut.jpg", "text.jpg", "a.png", "._a.jpg"}
    for name, row in table.iterrows():
        assert pd.notna(row.image_score) == pd.isna(row.error) == (name in good)
    assert sorted(p.name for p in maps.iterdir()) == ["deep_png_map.png", "whole_jpg_map.png"]
    assert Image.open(maps / "whole_jpg_map.png").size == (60, 80)
    cut = verdict.THRESHOLDS[load_profile("mini").threshold](table.image_score.dropna())
    said = table.image_score.dropna().map(lambda s: "abnormal" if s >= cut else "normal")
    assert table.verdict.dropna().to_dict() == said.to_dict()


def test_a_category_without_a_bank_is_scored_with_static_prompts_and_says_so(bolts, tmp_path):
    result = run(app, ["score", str(bolts["test"]), "--category", "teapot", "--out", str(tmp_path / "s.csv")])
    assert result.exit_code == 0 and "using the static prompts" in result.output


def test_the_command_line_and_python_say_the_same(bolts, tmp_path):
    out, why, page = tmp_path / "s.csv", tmp_path / "why.jsonl", tmp_path / "r.html"
    score(bolts["test"], "--out", out, "--explain", why, "--report", page)
    result = Inspector("bolt", views="whole")(bolts["test"])
    table = pd.read_csv(out)
    pd.testing.assert_frame_equal(table.drop(columns="error"), result.table.drop(columns="error"))
    lines = [json.loads(line) for line in why.read_text().splitlines()]
    assert [line["reasons"] for line in lines] == result.reasons
    assert set(lines[0]["reasons"][0]) == {"side", "prompt", "weight", "score", "where"}
    assert "bolt" in page.read_text() and page.stat().st_size > 50_000


def test_reasons_point_where_the_prompt_alone_is_warmest(tmp_path, backbone):
    image, _ = miniad.draw("bolt", "crack", miniad.generator(5), 96)
    Image.fromarray((image * 255).astype(np.uint8)).resize((150, 90)).save(tmp_path / "bolt.png")
    why = tmp_path / "why.jsonl"
    score(tmp_path / "bolt.png", "--out", tmp_path / "s.csv", "--explain", why)
    (line,) = map(json.loads, why.read_text().splitlines())
    detector = study.build_detector("alfa", load_profile("mini"), backbone).prepare("bolt")
    (expected,) = detector.explain(backbone.encode(backbone.preprocess([datasets.load_image(tmp_path / "bolt.png")])))
    assert [r["prompt"] for r in line["reasons"]] == [r["prompt"] for r in expected] and line["threshold"] == 0.5
    for said, reason in zip(line["reasons"], expected, strict=True):
        row, column = int(said["where"]["y"] * 192 / 90), int(said["where"]["x"] * 192 / 150)
        around = reason["map"][max(0, row - 1) : row + 4, max(0, column - 1) : column + 3]  # what one pixel covers
        assert around.max() == pytest.approx(reason["map"].max(), abs=1e-6)
        assert said["where"]["x"] < 150 and said["where"]["y"] < 90


def test_every_photograph_is_read_and_encoded_once_also_for_reasons(bolts, tmp_path, monkeypatch):
    from zsadlib.inspection import photographs
    from zsadlib.models.backbones import Backbone

    read, encoded = [], []
    load, encode = photographs.load_image, Backbone.encode
    monkeypatch.setattr(photographs, "load_image", lambda path: read.append(path) or load(path))
    monkeypatch.setattr(
        Backbone, "encode", lambda self, batch, *_: encoded.append(len(batch)) or encode(self, batch, *_)
    )
    others = ["--out", tmp_path / "s.csv", "--explain", tmp_path / "e", "--report", tmp_path / "r"]
    score(bolts["test"], *others)
    assert len(read) == 12 == sum(encoded) and len(encoded) == 1  # one batch
    score(bolts["test"], *others, "--maps", tmp_path / "m")
    assert len(read) == 12 + 24 and sum(encoded) == 24  # a heat map lies on the photograph at its own size


def test_normal_photographs_and_a_threshold_of_ones_own(bolts, tmp_path):
    out = tmp_path / "s.csv"
    result = score(bolts["test"], "--normal", bolts["normal"], "--out", out)
    assert "from 8 left-out normals, 11 % false alarms expected" in result.output
    assert pd.read_csv(out).threshold.nunique() == 1
    result = score(bolts["test"], "--threshold", "0.9", "--out", out)
    table = pd.read_csv(out)
    assert set(table.threshold) == {0.9} and ((table.image_score >= 0.9) == (table.verdict == "abnormal")).all()
    saved = tmp_path / "bolt.zsad"
    score(bolts["test"], "--normal", bolts["normal"], "--out", out, "--save", saved)
    pd.testing.assert_frame_equal(
        Inspector.load(saved)(bolts["test"]).table.drop(columns="error"), pd.read_csv(out).drop(columns="error")
    )


def test_a_folder_is_judged_as_a_whole_by_musc(bolts, tmp_path):
    score(bolts["test"], "--method", "musc", "--out", tmp_path / "s.csv", "--report", tmp_path / "r.html")
    assert pd.read_csv(tmp_path / "s.csv").image_score.notna().all()


def test_a_file_name_that_is_no_text_costs_nothing(bolts, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")  # as an old camera or archive writes it
    shutil.copy(next(iter((bolts["test"] / "good").iterdir())), tmp_path / name)
    (tmp_path / os.fsdecode(b"text\xff.png")).write_text("hello")
    for kind in ("csv", "jsonl"):
        out, more = tmp_path / f"s.{kind}", ["--report", tmp_path / "r.html", "--maps", tmp_path / "m"]
        score(tmp_path, "--format", kind, "--out", out, "--explain", tmp_path / "why", *more, code=1)
        printed = score(tmp_path, "--format", kind, "--out", "-", "--maps", tmp_path / "m", code=1).stdout
        for text in (out.read_text(encoding="utf-8"), printed):
            assert "caf\\udce9.png" in text and "text\\udcff.png cannot be read" in text
    assert pd.read_csv(tmp_path / "s.csv").image_score.notna().tolist() == [True, False]


def test_what_files_are_called_does_nothing_on_a_terminal(tmp_path, monkeypatch):
    name = "\x1b]0;owned\x07\x1b[2J\rgood.png"

    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    def printed(stream):
        monkeypatch.setattr(sys, "stdout", stream)
        row = {"path": name, "image_score": 0.5, "verdict": "normal", "threshold": 0.5, "error": "é"}
        write_table([row], "-", "csv")
        stream.flush()
        return stream.buffer.getvalue().decode(stream.encoding)

    shown = printed(Terminal(io.BytesIO(), "ascii"))
    assert "\\x1b]0;owned\\x07\\x1b[2J\\rgood.png" in shown and "\\xe9" in shown and len(shown.splitlines()) == 2
    assert name in printed(io.TextIOWrapper(io.BytesIO(), "utf-8")), "a program gets the name as it is"
    monkeypatch.undo()
    result = score(tmp_path / name, "--out", tmp_path / "s.csv", code=2)
    assert "\\x1b]0;owned" in result.output and "\x1b" not in result.output and "\r" not in result.output


def test_a_table_on_stdout_is_nothing_but_the_table(bolts, tmp_path):
    command = [ZSAD, "score", bolts["test"] / "good", "--category", "bolt", "--out", "-"]
    for kind in ("csv", "jsonl"):
        done = subprocess.run([*command, "--format", kind], capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        rows = pd.read_csv(io.StringIO(done.stdout)) if kind == "csv" else [json.loads(line) for line in lines]
        assert len(rows) == 6 and "images scored" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_keeps_what_it_has_and_resumes(bolts, tmp_path, monkeypatch):
    out, find = tmp_path / "s.csv", inspection.Inspector.inspect

    def stops(self, images, wanted):
        for i, finding in enumerate(find(self, images, wanted)):
            if i == 4:
                raise KeyboardInterrupt
            yield finding

    monkeypatch.setattr(inspection.Inspector, "inspect", stops)
    stopped = score(bolts["test"], "--out", out, "--report", tmp_path / "r.html", code=130)
    assert "4 of 12 are in" in stopped.output and not out.exists()
    monkeypatch.setattr(inspection.Inspector, "inspect", find)
    score(bolts["test"], "--out", out, "--report", tmp_path / "r.html", "--resume")
    assert not (tmp_path / "s.csv.partial").exists()
    straight = Inspector("bolt", views="whole")(bolts["test"]).table
    assert np.allclose(pd.read_csv(out).image_score, straight.image_score, atol=1e-5)
    assert pd.read_csv(out).verdict.tolist() == straight.verdict.tolist()


def test_a_stopped_run_of_a_method_that_judges_a_folder_as_a_whole_begins_anew(bolts, tmp_path, monkeypatch):
    out, find = tmp_path / "s.csv", inspection.Inspector.inspect

    def stops(self, images, wanted):
        yield from list(find(self, images, wanted))[:11]
        raise KeyboardInterrupt

    monkeypatch.setattr(inspection.Inspector, "inspect", stops)
    stopped = score(bolts["test"], "--method", "musc", "--out", out, code=130)
    assert "11 of 12 were scored" in stopped.output and "--resume" not in stopped.output
    monkeypatch.setattr(inspection.Inspector, "inspect", find)
    score(bolts["test"], "--method", "musc", "--out", out, "--resume")
    straight = Inspector("bolt", method="musc")(bolts["test"]).table
    assert pd.read_csv(out).image_score.tolist() == straight.image_score.tolist()


def test_a_killed_run_leaves_its_rows_in_the_partial_file(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
    for i in range(60):
        Image.fromarray(np.roll(noise, i, 0)).save(photos / f"{i:02d}.png", compress_level=1)
    out = tmp_path / "s.csv"
    process = subprocess.Popen([ZSAD, "score", photos, "--category", "bolt", "--out", out], stderr=subprocess.DEVNULL)
    partial, until = tmp_path / "s.csv.partial", time.monotonic() + 240
    while not (partial.is_file() and len(partial.read_text().splitlines()) > 3) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(partial.read_text().splitlines()) - 1
    assert not out.exists() and 0 < kept
    again = [ZSAD, "score", photos, "--category", "bolt", "--out", out, "--resume"]
    done = subprocess.run(again, capture_output=True, timeout=300)
    assert done.returncode == 0 and len(pd.read_csv(out)) == 60 and not partial.exists()


def test_heat_maps_of_an_earlier_run_are_not_scored(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    maps = tmp_path / "maps"
    maps.mkdir()
    Image.new("RGB", (8, 8)).save(maps / "photo_png_map.png")
    assert find_files([tmp_path], maps) == [tmp_path / "photo.png"]
    assert len(find_files([tmp_path], tmp_path)) == 2  # photographs are not lost where they share the folder
    assert len(find_files([tmp_path])) == 2 and len(find_files([maps / "photo_png_map.png"], maps)) == 1


def test_evaluate_writes_the_tidy_table(tiny_category, tmp_path):
    out = tmp_path / "metrics.csv"
    arguments = ["evaluate", "--root", str(tiny_category), "--category", "bolt", "--out", str(out)]
    result = run(app, [*arguments, "--methods", "clip-ac,winclip,alfa"])
    table = pd.read_csv(out)
    assert result.exit_code == 0, result.output
    assert list(table) == study.COLUMNS and len(table) == 3 * 7 and set(table.category) == {"bolt"}
    few = run(app, [*arguments, "--methods", "winclip,alfa", "--shots", "2"])
    assert few.exit_code == 0 and set(pd.read_csv(out).shots) == {2}


def test_the_examples_are_drawn_and_told_apart(tmp_path):
    result = run(app, ["examples", str(tmp_path / "photos")])
    assert result.exit_code == 0 and "zsad score" in result.output
    assert len(list((tmp_path / "photos").iterdir())) == 3
    again = run(app, ["examples", str(tmp_path / "photos")])
    assert again.exit_code == 2 and "is there already" in again.output
    quoted = (ROOT / "README.md").read_text().split("<!-- example -->\n")[1].split("<!-- /example -->")[0]
    command = ["score", str(tmp_path / "photos"), "--category", "bolt", "--out", str(tmp_path / "s.csv")]
    assert run(app, command).exit_code == 0
    table, said = pd.read_csv(tmp_path / "s.csv"), pd.read_csv(io.StringIO(quoted), skipinitialspace=True)
    assert [p.rsplit("/", 1)[1] for p in table.path] == [p.rsplit("/", 1)[1] for p in said.path]
    assert table.verdict.tolist() == said.verdict.tolist() and np.allclose(
        table.image_score, said.image_score, atol=0.005
    )
    good = table.path.str.contains("good")
    assert table.image_score[good].max() < table.image_score[~good].min()


def test_lists_and_help_name_every_method():
    listed, helped = run(app, ["methods"]).output, run(app, ["score", "--help"], env={"COLUMNS": "200"}).output
    for name in METHODS:
        assert re.search(rf"^{re.escape(name)} ", listed, re.M) and name in helped
    assert "pictures of other categories" in listed and "the unlabelled test set" in listed
    assert all(name in run(app, ["profiles"]).output for name in ("mini", "paper", "large"))
    assert run(app, ["--version"]).output == f"zsad {__version__}\n"
    assert "--install-completion" in run(app, ["--help"]).output


# ------------------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["score", "nowhere", "--category", "x", "--out", "o.csv"], "does not exist"),
     (["score", ".", "--category", "x", "--out", "o.csv", "--method", "magic"], "unknown method"),
     (["score", ".", "--category", "x", "--out", "o.csv", "--profile", "huge"], "unknown profile"),
     (["score", ".", "--category", "x", "--out", "."], "is a folder"),
     (["score", ".", "--category", "x", "--out", "o.csv", "--explain", "."], "is a folder"),
     (["score", ".", "--category", "x", "--out", "o.csv", "--maps", "photo.png"], "is a file"),
     (["score", ".", "--category", "x", "--out", "o", "--explain", "o"], "named twice"),
     (["score", ".", "--category", "x", "--out", "o", "--report", "o"], "named twice"),
     (["score", ".", "--category", "x", "--out", "-", "--resume"], "needs a file"),
     (["score", ".", "--category", "x", "--out", "o.csv", "--views", "many"], "unknown views"),
     (["score", ".", "--category", "x", "--out", "o.csv", "--roi", "1,2"], "no region of interest"),
     (["score", ".", "--category", "x", "--out", "o.csv", "--roi", "left"], "neither a mask file nor"),
     (["score", ".", "--category", "x", "--out", "o.csv", "--prompts", "none.json"], "does not exist"),
     (["score", ".", "--category", "x", "--out", "o.csv", "--normal", ".", "--false-alarms", "0"], "between 0 and 1"),
     (["score", ".", "--category", "x", "--out", "o.csv", "--explain", "e", "--method", "winclip"], "use --method alfa"),
     (["evaluate", "--root", ".", "--category", "x", "--out", "."], "is a folder"),
     (["evaluate", "--root", ".", "--category", "x", "--out", "o.csv"], "MVTec AD layout"),
     (["study", "--parameter", "limit"], "has no value"), (["study", "--profile", "huge"], "unknown profile"),
     (["prompts", "record", "--llm", "some-model"], "set OPENAI_API_KEY"),
     (["prompts", "record", "--llm", "gemma-3-270m", "--category", "../x"], "cannot name a prompt bank"),
     (["examples", "photo.png"], "is a file")],
)  # fmt: skip
def test_wrong_calls_exit_with_2_and_one_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = run(app, arguments)
    assert result.exit_code == 2 and re.search(message, result.output), result.output
    assert "Traceback" not in result.output and [p.name for p in tmp_path.iterdir()] == ["photo.png"]


def test_a_method_named_twice_is_refused_before_work(tiny_category, tmp_path, monkeypatch):
    monkeypatch.setattr("zsadlib.study.benchmark.evaluate", lambda *_: pytest.fail("work was begun"))
    arguments = ["evaluate", "--root", str(tiny_category), "--category", "bolt", "--out", str(tmp_path / "o.csv")]
    for methods in ("alfa,alfa", "winclip, alfa,winclip"):
        result = run(app, [*arguments, "--methods", methods])
        assert result.exit_code == 2 and "is named twice in --methods" in result.output


def test_an_output_that_cannot_be_written_is_found_before_any_work(bolts, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "Inspector", lambda *_, **__: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("")
    for option in (["--out", tmp_path / "file" / "s.csv"], ["--out", tmp_path / "s.csv", "--report", "/proc/r.html"]):
        result = score(bolts["test"], *option, code=3)
        assert "the system refused" in result.output and "Traceback" not in result.output


def test_what_is_no_file_is_not_written_over(bolts, tiny_category, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "Inspector", lambda *_, **__: pytest.fail("work was begun"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for out in (pipe, tmp_path / "link"):
        for option in (["--out", out], ["--out", tmp_path / "s.csv", "--save", out]):
            assert "is a pipe or a device" in score(bolts["test"], *option, code=2).output
        result = run(app, ["evaluate", "--root", str(tiny_category), "--category", "bolt", "--out", str(out)])
        assert result.exit_code == 2 and "is a pipe or a device" in result.output
        with pytest.raises(ValueError, match="a pipe or a device"), replacing(out):
            pytest.fail("work was begun")
    assert pipe.is_fifo() and (tmp_path / "link").is_symlink() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_may_be_read_by_whom_the_umask_says(mask, mode, tmp_path):
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "s.csv") as temporary:
            temporary.unlink()
            temporary.touch(0o400)  # as some writers do
    finally:
        os.umask(before)
    assert (tmp_path / "s.csv").stat().st_mode & 0o777 == mode


def refuses(code):
    def raise_it(*_, **__):
        raise OSError(code, os.strerror(code), "scores.csv")

    return raise_it


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_full_disk_and_every_refusal_of_the_system_end_in_one_sentence_and_3(code, bolts, tmp_path, monkeypatch):
    monkeypatch.setattr("zsadlib.inspection.partial.Partial.add", refuses(code))
    result = score(bolts["test"], "--out", tmp_path / "s.csv", code=3)
    assert "the system refused: scores.csv" in result.output and not (tmp_path / "s.csv").exists()
    assert result.output.strip().splitlines()[-1].startswith("zsad: ")


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="only root can make a small disk")
def test_a_disk_that_is_really_full_ends_in_3_and_loses_nothing(bolts, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no small disk can be made here")
    try:
        (disk / "s.csv").write_text("an earlier table")
        result = score(bolts["test"], "--out", disk / "s.csv", "--report", disk / "r.html", code=3)
        assert "the disk is full" in result.output and (disk / "s.csv").read_text() == "an earlier table"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def no_gpu_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize(
    "fill", [no_gpu_memory, lambda: torch.empty(1 << 46, dtype=torch.uint8), lambda: np.empty(1 << 50)]
)
def test_too_little_memory_is_a_refusal_of_the_system(fill, bolts, tmp_path, monkeypatch):
    monkeypatch.setattr("zsadlib.models.backbones.Backbone.encode", lambda *_: fill())
    result = score(bolts["test"], "--out", tmp_path / "s.csv", code=3)
    assert "there is not enough memory; use a smaller --batch-size" in result.output


def test_a_gpu_that_is_not_there_is_a_wrong_call(bolts, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = score(bolts["test"], "--out", tmp_path / "s.csv", "--device", "cuda", code=2)
    assert "torch finds no GPU" in result.output and "use 'cpu'" in result.output


def test_what_cannot_be_removed_from_the_cache_is_told(tmp_path, monkeypatch):
    for name in ("models.store.FOLDER", "study.units.UNITS", "study.methods.FITTED"):
        monkeypatch.setattr(f"zsadlib.{name}", tmp_path / name)
        (tmp_path / name).mkdir()
        for file in ("a.json", "b.json"):
            (tmp_path / name / file).touch()
    folder, remove = tmp_path / "study.units.UNITS", os.unlink

    def refused(path, **options):
        if path == "a.json" and os.path.samestat(os.stat(folder), os.fstat(options["dir_fd"])):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        remove(path, **options)

    monkeypatch.setattr(os, "unlink", refused)
    result = run(app, ["cache", "clear"])
    assert result.exit_code == 3 and "nothing is kept" not in result.output
    assert f"not all of {folder} can be removed (a.json: Permission denied)" in result.output
    assert sorted(tmp_path.rglob("*")) == [folder, folder / "a.json"]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in run(app, ["cache", "clear"]).output
    monkeypatch.undo()


def test_a_recorded_banks_server_is_asked_by_the_client_that_bounds_replies(tmp_path, monkeypatch):
    client, asked = nullcontext(object()), []
    monkeypatch.setattr("zsadlib.prompts.llm.connect", lambda: client)
    bank = banks.Bank(llm="m", category="bolt", request={}, answers={"normal": ["a"], "abnormal": ["b"]})
    monkeypatch.setattr("zsadlib.prompts.llm.record", lambda *given, **_: asked.append(given) or bank)
    command = ["prompts", "record", "--llm", "m", "--category", "bolt", "--out", str(tmp_path)]
    monkeypatch.setenv("OPENAI_API_KEY", "some")
    assert run(app, command).exit_code == 0 and asked == [("m", "bolt", tmp_path, client.enter_result)]


def test_a_fault_of_ours_is_4_and_says_how_to_report_it(bolts, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise KeyError("oops")

    monkeypatch.setattr("zsadlib.inspection.inspector.Inspector.inspect", broken)
    result = score(bolts["test"], "--out", tmp_path / "s.csv", code=4)
    assert "a fault of ours (KeyError" in result.output and "ZSAD_DEBUG" in result.output


def test_text_of_an_llm_is_inert_on_a_terminal_and_in_the_page(bolts, tmp_path):
    file = tmp_path / "words.json"
    evil = "{} \x1b[31mred\x1b[0m \u202egnorw $\\frac{1}{2$ <script>alert(1)</script>"
    file.write_text(json.dumps({"normal": ["fine {}"], "abnormal": [evil]}))
    why, page = tmp_path / "why.jsonl", tmp_path / "r.html"
    result = score(bolts["test"], "--prompts", file, "--out", tmp_path / "s.csv", "--explain", why, "--report", page)
    for text in (result.output, why.read_text(), page.read_text()):
        assert "\x1b" not in text and "\u202e" not in text and "<script>alert" not in text


def test_the_installed_command_answers():
    result = subprocess.run([ZSAD, "prompts", "list"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "gemma-3-270m" in result.stdout and "strong" in result.stdout
