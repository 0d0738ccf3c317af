"""The same units by many workers: equal to the bit, and nothing is lost when one is killed."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from conftest import write_category
from typer.testing import CliRunner

from zsadlib import cli, datasets, profiles
from zsadlib.models import loading, store
from zsadlib.study import benchmark, parallel, units

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A profile of three small categories, as a JSON file."""
    root = tmp_path_factory.mktemp("parallel")
    for name in ("bolt", "key", "coin"):
        write_category(root / "set" / name, name, train=3)
    write_category(root / "chosen" / "screw", "screw", train=0)
    plan = profiles.load_profile("mini").model_copy(
        update={"seen": (), "test": (str(root / "set"),), "bank": "static", "draws": 2, "shots": (1, 2)}
        | {"development": (str(root / "chosen"),)}
    )
    (root / "small.json").write_text(plan.model_dump_json())
    return root / "small.json"


@pytest.fixture(scope="module")
def serial(small, tmp_path_factory):
    """The serial table, from an empty cache."""
    plan, cache = profiles.load_profile(str(small)), tmp_path_factory.mktemp("serial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "FOLDER", cache / "embeddings")
        patch.setattr(units, "UNITS", cache / "units")
        words, images = benchmark.zero_shot(plan), benchmark.few_shot(plan)
        asked = (plan.development, benchmark.on_development(plan)), (plan.test, words + images)
        backbone = loading.profile_backbone(plan)
        return pd.concat([benchmark.evaluate(plan, backbone, datasets.load_split(s), some) for s, some in asked])


def start(small, out, backend, data, **environment):
    """``zsad bench`` in a process of its own, with an empty cache, and two threads as here."""
    command = [BIN / "zsad", "bench", "--profile", small, "--backend", backend, "--jobs", "2", "--out", out]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment = os.environ | threads | {"ZSAD_DATA": str(data)} | environment
    return subprocess.Popen(list(map(str, command)), env=environment, stderr=(out.parent / "said.txt").open("w"))


def equals(out, serial):
    """Whether a written table is the serial one, to the bit."""
    pd.testing.assert_frame_equal(pd.read_csv(out), serial.reset_index(drop=True), check_exact=True)


def test_processes_of_this_machine_give_the_serial_table(small, serial, tmp_path):
    run = start(small, tmp_path / "table.csv", "loky", tmp_path)
    assert run.wait(300) == 0, (tmp_path / "said.txt").read_text()
    equals(tmp_path / "table.csv", serial)


def processes_of(data):
    """Processes that were started for one folder of data."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("ZSAD_DATA") == str(data):
                yield process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray cluster of two workers with one processor each, started by Ray's own command: its address."""
    pytest.importorskip("ray")
    data, ray = tmp_path_factory.mktemp("cluster"), str(BIN / "ray")
    environment = os.environ | {"ZSAD_DATA": str(data), "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_DEDUP_LOGS": "0"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--num-cpus=1", "--disable-usage-stats", "--object-store-memory=100000000"]
    head = ["--head", f"--port={port}", "--include-dashboard=false"]
    try:
        for where in (head, [f"--address=127.0.0.1:{port}"]):
            subprocess.run([ray, "start", *where, *options], env=environment, check=True, stdout=subprocess.DEVNULL)
        yield f"127.0.0.1:{port}", data
    finally:
        for process in processes_of(data):  # not `ray stop`, which ends every cluster of the machine
            with contextlib.suppress(psutil.Error):
                process.kill()


def test_a_killed_worker_of_a_cluster_loses_nothing(small, serial, cluster, tmp_path):
    address, data = cluster
    run = start(small, tmp_path / "table.csv", "ray", data, RAY_ADDRESS=address)
    until, workers = time.monotonic() + 240, []
    while (
        not list((data / "cache" / "units").rglob("[!.]*.json")) or len(workers) < 2
    ):  # a busy machine starts one late
        assert run.poll() is None and time.monotonic() < until, (tmp_path / "said.txt").read_text()
        time.sleep(0.1)
        workers = [process for process in processes_of(data) if "PoolActor" in " ".join(process.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    assert run.wait(300) == 0, (tmp_path / "said.txt").read_text()
    equals(tmp_path / "table.csv", serial)
    done = [json.loads(p.read_text())["unit"] for p in (data / "cache" / "units").rglob("[!.]*.json")]
    plan = profiles.load_profile(str(small))
    tested = benchmark.zero_shot(plan) + benchmark.few_shot(plan)
    assert len(done) == len(benchmark.on_development(plan)) + 3 * len(tested)


def test_units_whose_worker_dies_each_time_are_given_up(small, monkeypatch, tmp_path):
    plan = profiles.load_profile(str(small))
    monkeypatch.setattr(units, "UNITS", tmp_path)
    monkeypatch.setattr(parallel, "_compute", os._exit)
    monkeypatch.setattr(parallel.joblib, "delayed", lambda function: lambda *_: (function, (1,), {}))
    with pytest.raises(ValueError, match="died in each of 5 attempts"):
        parallel.evaluate(plan, datasets.load_split(plan.development), benchmark.on_development(plan))


def test_a_worker_that_would_compute_something_else_refuses(small, monkeypatch, tmp_path):
    plan = profiles.load_profile(str(small))
    monkeypatch.setattr(units, "UNITS", tmp_path)
    (category,) = datasets.load_split(plan.development)
    with pytest.raises(ValueError, match="would compute something else"):
        parallel._compute(plan, category, {units.Unit("clip-ac"): "another.json"}, 1)
    assert not list(tmp_path.iterdir())


def test_a_wrong_call_is_one_sentence(small, tmp_path, monkeypatch):
    plan, run = profiles.load_profile(str(small)), CliRunner().invoke
    with pytest.raises(ValueError, match="choose loky or ray"):
        parallel.evaluate(plan, [], [], "slurm")
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    with pytest.raises(ValueError, match="Ray is not installed"):
        parallel.evaluate(plan, [], [], "ray")
    wrong = run(cli.app, ["bench", "--profile", str(small), "--out", str(tmp_path), "--backend", "loky"])
    assert wrong.exit_code == 2 and "is a folder" in wrong.output
