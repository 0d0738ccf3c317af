"""The same units on many cores or many machines: joblib runs them, on this machine (loky) or on a Ray cluster.

What one task computes is what ``units.complete`` does for the units of one category and one draw of support images, so the
table is the serial one, to the bit where the machines are alike. Workers read the same paths (a shared disk), and keep what they
have computed under ``ZSAD_DATA``; it also travels back and is kept by whoever asked.
"""

import joblib
import torch

from zsadlib import detectors
from zsadlib.models.loading import profile_backbone
from zsadlib.study import benchmark
from zsadlib.study.methods import build_detectors, refuse_what_taught
from zsadlib.study.units import complete, keep, kept, unit_file

ATTEMPTS = 5  # units whose workers die each time are given up


def _compute(profile, category, names, threads):
    """Results of some units of one category. names: dict of unit -> name of its file, as whoever asks would compute it."""
    torch.set_num_threads(threads)  # sums of floats depend on it
    backbone = profile_backbone(profile)
    built = build_detectors(names, profile, backbone)
    files = {unit: unit_file(unit, built[unit.method], category) for unit in names}
    if {unit: file.name for unit, file in files.items()} != names:
        raise ValueError(
            "a worker would compute something else; all machines need the same images, weights, versions of the code and of "
            "the libraries, and the same kind of device and precision (name both in the profile)"
        )
    return dict(complete(category, names, built, files))


def _lost(backend):
    """The errors that mean a lost worker, not a wrong program."""
    if backend == "loky":
        return (joblib.externals.loky.process_executor.TerminatedWorkerError,)
    from ray import exceptions as ray

    return ray.RayActorError, ray.WorkerCrashedError, ray.NodeDiedError, ray.ObjectLostError, ray.OutOfMemoryError


def evaluate(profile, categories, units, backend="loky", jobs=2):
    """``benchmark.evaluate`` by ``jobs`` workers, each with as many threads as torch has here.

    Args:
        backend: "loky" (processes of this machine) or "ray" (the cluster of RAY_ADDRESS, or one of this machine's own).

    Raises:
        ValueError: unknown backend, Ray is not installed, a category has one class only, a worker differs from who asks, or
            workers died again and again.
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
        options = {"ray_remote_args": {"max_restarts": -1, "max_task_retries": 1}}
    benchmark.check(categories)
    backbone, lost = profile_backbone(profile), _lost(backend)
    for name in {unit.method for unit in units}:
        refuse_what_taught(detectors.method(name), profile, categories)
    built = build_detectors(units, profile, backbone)
    files = {(c, u): unit_file(u, built[u.method], c) for c in categories for u in units}
    draws = sorted({(unit.shots > 0, unit.seed) for unit in units})
    for _ in range(ATTEMPTS):
        missing = [key for key, file in files.items() if kept(file) is None]
        # draw by draw, so that workers do not encode one category at a time
        tasks = [
            (c, [u for o, u in missing if o is c and (u.shots > 0, u.seed) == d]) for d in draws for c in categories
        ]
        tasks = [(c, {u: files[c, u].name for u in some}) for c, some in tasks if some]
        calls = [joblib.delayed(_compute)(profile, *task, torch.get_num_threads()) for task in tasks]
        problem, answers = None, []
        with joblib.parallel_config(backend=backend, n_jobs=jobs, **options):
            try:
                answers = joblib.Parallel(batch_size=1)(calls)
            except lost as error:
                problem = error
        for (category, _), found in zip(tasks, answers, strict=False):
            if isinstance(found, Exception):  # Ray's backend hands an error over as a result
                problem = found
                continue
            for unit, result in found.items():
                keep(files[category, unit], result)
        if problem is None:
            return benchmark.evaluate(profile, backbone, categories, units)
        if not isinstance(problem, lost):
            raise problem
    raise ValueError(f"workers died in each of {ATTEMPTS} attempts; give them more memory or fewer --jobs ({problem})")
