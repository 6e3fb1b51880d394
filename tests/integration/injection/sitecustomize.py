"""On PYTHONPATH, this changes what a worker's Python does when it imports the service's `compute` module.

INJECT_CRASH=666     a job with this seed kills the process, as a fault in native code would
INJECT_SLEEP=0.0025  a step sleeps so many seconds whatever the batch, as a GPU computes
INJECT_DELAY=0.01    a step is computed, and then sleeps so many seconds for each picture of the batch
INJECT_COUNT=FILE    every batch adds a line to the file: its size and its steps
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

MODULE = "robust_synthesis.worker.compute"


def patch(compute: Any) -> None:
    advance, open_jobs, evaluate = compute.advance, compute.open_jobs, compute.Compute._evaluate
    zero = compute.torch.zeros(1)
    from robust_synthesis.batch_sizes import padded

    def crashing(parts: Sequence[Any], *worker: Any) -> Any:
        requests = [request for part in parts if (request := getattr(part, "request", None)) is not None]
        if any(request.spec.seed == int(os.environ["INJECT_CRASH"]) for request in requests):
            os.kill(os.getpid(), signal.SIGKILL)
        return open_jobs(parts, *worker)

    def sleeping(self: Any, jobs: Sequence[Any], k: int) -> None:
        started = time.perf_counter()
        time.sleep(k * float(os.environ["INJECT_SLEEP"]))
        self.last_batches.append((padded(len(jobs), self._sizes), k, time.perf_counter() - started))
        for job in jobs:
            evaluations = min(k, int(job.state.remaining))
            job.loss += [1.0] * evaluations
            job.probability += [0.5] * evaluations
            job.predicted = 0
            remaining = job.state.remaining - evaluations
            job.state = replace(job.state, remaining=remaining, best_loss=zero, best_class=zero.long())

    def delayed(self: Any, jobs: Sequence[Any], k: int) -> None:
        evaluate(self, jobs, k)
        slept = k * len(jobs) * float(os.environ["INJECT_DELAY"])
        time.sleep(slept)
        size, steps, seconds = self.last_batches[-1]
        self.last_batches[-1] = size, steps, seconds + slept

    def warming(self: Any, sizes: Sequence[int] = (1, 8)) -> None:
        self.step_seconds = dict.fromkeys(sizes, float(os.environ["INJECT_SLEEP"]))

    def counting(classifier: Any, problem: Any, state: Any, k: int, **options: Any) -> Any:
        with Path(os.environ["INJECT_COUNT"]).open("a") as file:
            file.write(f"{len(state)} {k}\n")
        return advance(classifier, problem, state, k, **options)

    if "INJECT_CRASH" in os.environ:
        compute.open_jobs = crashing
    if "INJECT_SLEEP" in os.environ:
        compute.Compute._evaluate = sleeping
        compute.Compute.warm_up = warming
    if "INJECT_DELAY" in os.environ:
        compute.Compute._evaluate = delayed
    if "INJECT_COUNT" in os.environ:
        compute.advance = counting


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            loader: Any = spec.loader
            run = loader.exec_module

            def run_and_patch(module: Any) -> None:
                run(module)
                patch(module)

            loader.exec_module = run_and_patch
        return spec


sys.meta_path.insert(0, Finder())
