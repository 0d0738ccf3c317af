"""The same units by many workers: equal to the bit, and nothing is lost when one is killed."""

import json
import os
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

from zsadlib import benchmark, cli, datasets, parallel, profiles, store

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A profile of three small categories, as a JSON file."""
    root = tmp_path_factory.mktemp("parallel")
    for name in ("bolt", "key", "coin"):
        write_category(root / "set" / name, name, train=3)
    plan = profiles.load_profile("mini").model_copy(
        update={"test": (str(root / "set"),), "bank": "static", "draws": 2, "shots": (1, 2)}
    )
    (root / "small.json").write_text(plan.model_dump_json())
    return root / "small.json"


@pytest.fixture(scope="module")
def serial(small, tmp_path_factory):
    """The serial table, from an empty cache."""
    plan, cache = profiles.load_profile(str(small)), tmp_path_factory.mktemp("serial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "FOLDER", cache / "embeddings")
        patch.setattr(benchmark, "UNITS", cache / "units")
        units = benchmark.zero_shot(plan) + benchmark.few_shot(plan)
        return benchmark.evaluate(plan, benchmark.profile_backbone(plan), datasets.load_split(plan.test), units)


def start(small, out, backend, data, **environment):
    """``zsad bench`` in a process of its own, with an empty cache, and two threads as here."""
    command = [BIN / "zsad", "bench", "--profile", small, "--backend", backend, "--jobs", "2", "--out", out]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment = os.environ | threads | {"ZSAD_DATA": str(data)} | environment
    return subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True)


def read(out):
    return pd.read_csv(out)


def test_processes_of_this_machine_give_the_serial_table(small, serial, tmp_path):
    run = start(small, tmp_path / "table.csv", "loky", tmp_path)
    assert run.wait(300) == 0, run.stderr.read()
    pd.testing.assert_frame_equal(read(tmp_path / "table.csv"), serial, check_exact=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray cluster of two workers with one processor each, started by Ray's own command: its address."""
    pytest.importorskip("ray")
    data, ray = tmp_path_factory.mktemp("cluster"), str(BIN / "ray")
    environment = os.environ | {"ZSAD_DATA": str(data), "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_DEDUP_LOGS": "0"}
    port = 20000 + os.getpid() % 10000
    options = ["--num-cpus=1", "--disable-usage-stats", "--object-store-memory=100000000"]
    head = [ray, "start", "--head", f"--port={port}", "--include-dashboard=false", *options]
    before = set(psutil.process_iter())
    subprocess.run(head, env=environment, check=True, stdout=subprocess.DEVNULL)
    address = f"127.0.0.1:{port}"
    worker = [ray, "start", f"--address={address}", *options]
    subprocess.run(worker, env=environment, check=True, stdout=subprocess.DEVNULL)
    ours = [p for p in set(psutil.process_iter()) - before if "ray" in " ".join(p.cmdline())]
    yield address, data
    for process in ours:  # not `ray stop`, which ends every cluster of the machine
        for one in [*process.children(recursive=True), process] if process.is_running() else []:
            one.kill()


def actors(data):
    """The cluster's processes at work."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any("PoolActor" in part for part in process.info["cmdline"] or []):
            if process.environ().get("ZSAD_DATA") == str(data):
                found.append(process)
    return found


def test_a_killed_worker_of_a_cluster_loses_nothing(small, serial, cluster, tmp_path):
    address, data = cluster
    run = start(small, tmp_path / "table.csv", "ray", data, RAY_ADDRESS=address)
    until = time.monotonic() + 240
    while not list((data / "cache" / "units").rglob("[!.]*.json")) and time.monotonic() < until:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.1)
    workers = actors(data)
    assert len(workers) == 2
    workers[0].kill()
    _, said = run.communicate(timeout=300)
    assert run.returncode == 0, said
    pd.testing.assert_frame_equal(read(tmp_path / "table.csv"), serial, check_exact=True)
    units = [json.loads(p.read_text())["unit"] for p in (data / "cache" / "units").rglob("[!.]*.json")]
    plan = profiles.load_profile(str(small))
    assert len(units) == 3 * len(benchmark.zero_shot(plan) + benchmark.few_shot(plan))


def test_a_wrong_call_is_one_sentence(small, tmp_path, monkeypatch):
    plan, run = profiles.load_profile(str(small)), CliRunner().invoke
    with pytest.raises(ValueError, match="choose loky or ray"):
        parallel.evaluate(plan, [], [], "slurm")
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    with pytest.raises(ValueError, match="Ray is not installed"):
        parallel.evaluate(plan, [], [], "ray")
    wrong = run(cli.app, ["bench", "--profile", str(small), "--out", str(tmp_path), "--backend", "loky"])
    assert wrong.exit_code == 2 and "is a folder" in wrong.output
