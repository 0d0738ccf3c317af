"""The same units on many cores or many machines: joblib runs them, on this machine (loky) or on a Ray cluster.

What one task computes is what ``benchmark.complete`` does for the units of one category and one draw of support images, so the
table is the serial one, to the bit where the machines are alike. Workers read the same paths (a shared disk), and keep what they
have computed under ``ZSAD_DATA``; it also travels back and is kept by whoever asked.
"""

from itertools import groupby

import joblib
import torch

from zsadlib import benchmark

ATTEMPTS = 5  # a task that kills its worker each time is given up


def _compute(profile, category, units, threads):
    torch.set_num_threads(threads)  # as many as the one who asked: sums of floats depend on it
    backbone = benchmark.profile_backbone(profile)
    built = benchmark.build_detectors(units, profile, backbone)
    files = {unit: benchmark.unit_file(unit, built[unit.method], category) for unit in units}
    return [(category, unit, files[unit].name, r) for unit, r in benchmark.complete(category, units, built, files)]


def _died(backend):
    """The errors that mean a lost worker, not a wrong program."""
    if backend == "ray":
        from ray.exceptions import RayError, RayTaskError

        return lambda error: isinstance(error, RayError) and not isinstance(error, RayTaskError)
    return lambda error: isinstance(error, joblib.externals.loky.process_executor.TerminatedWorkerError)


def evaluate(profile, categories, units, backend="loky", jobs=2):
    """``benchmark.evaluate`` by ``jobs`` workers.

    Args:
        backend: "loky" (processes of this machine) or "ray" (the cluster of RAY_ADDRESS, or one of this machine's own).

    Raises:
        ValueError: unknown backend, Ray is not installed, or a worker has other weights, code or libraries.
        RuntimeError: workers died again and again.
    """
    if backend not in ("loky", "ray"):
        raise ValueError(f"unknown backend '{backend}'; choose loky or ray")
    options = {}
    if backend == "ray":
        try:
            from ray.util.joblib import register_ray
        except ImportError:
            raise ValueError("Ray is not installed; install it with: pip install -e '.[cluster]'") from None
        register_ray()
        options = {"ray_remote_args": {"max_restarts": -1, "max_task_retries": -1}}
    backbone = benchmark.profile_backbone(profile)
    built, died = benchmark.build_detectors(units, profile, backbone), _died(backend)
    for _ in range(ATTEMPTS):
        tasks = []
        for category in categories:
            files = {unit: benchmark.unit_file(unit, built[unit.method], category) for unit in units}
            missing = sorted((u for u in units if not files[u].is_file()), key=lambda u: (u.shots > 0, u.seed))
            parts = [list(part) for _, part in groupby(missing, key=lambda u: (u.shots > 0, u.seed))]
            tasks += [joblib.delayed(_compute)(profile, category, part, torch.get_num_threads()) for part in parts]
        with joblib.parallel_config(backend=backend, n_jobs=jobs, **options):
            try:
                for found in joblib.Parallel(batch_size=1)(tasks):
                    if isinstance(found, Exception):  # Ray's backend hands a lost worker's error over as a result
                        raise found
                    for category, unit, name, result in found:
                        file = benchmark.unit_file(unit, built[unit.method], category)
                        if file.name != name:
                            raise ValueError(
                                "a worker has other weights, code or libraries; install the same everywhere"
                            )
                        benchmark.keep(file, result)
                break
            except Exception as error:
                if not died(error):
                    raise
                lost = error
    else:
        raise RuntimeError(f"workers died in each of {ATTEMPTS} attempts; the last: {lost}") from lost
    return benchmark.evaluate(profile, backbone, categories, units)
