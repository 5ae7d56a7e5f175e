"""``python -m benchmarks.cluster``: a real two-node Ray cluster on this machine against one process, long tasks.

Every task is the same amount of single-threaded work, 5 seconds or more. Ideal is half the time of one process. Two
bare processes without any engine show what the machine itself allows at that moment. All three take turns.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

NODES = 2


@dataclass(frozen=True)
class Sum:
    """So many additions in plain Python: one thread, no memory to speak of."""

    number: int
    additions: int
    bundle: str = ""
    label: str = "sum"
    files: tuple[str, ...] = ()
    data_sets: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return f"sum {self.number} {self.additions}"

    @classmethod
    def make(cls, root: Path, jobs: Any) -> list[Any]:
        from minutia.study.work import Made

        return [Made({"sum": add(job.number, job.additions)}) for job in jobs]


def add(start: int, additions: int) -> int:
    total = start
    for i in range(additions):
        total += i & 7
    return total


def main() -> None:
    """Print the times of every way, and the ratio to ideal."""
    from tests.study.clusters import Cluster

    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--tasks", type=int, default=8, help="how many tasks")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long one task takes alone")
    parser.add_argument("--repeats", type=int, default=2, help="how often every way has its turn")
    options = parser.parse_args()
    jobs = [Sum(n, additions_of(options.seconds)) for n in range(options.tasks)]
    with Cluster() as cluster:
        cluster.join()
        os.environ.update(cluster.environment)
        ways = {"one process": alone, "two bare processes": bare, "two nodes": lambda j: on_nodes(j, cluster.address)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, way in ways.items():
                times[name].append(way(jobs))
                print(f"{name}: {times[name][-1]:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    one, limit, nodes = (float(np.median(times[name])) for name in ways)
    print(f"{options.tasks} tasks of {options.seconds:g} s on {NODES} nodes with one CPU each")
    print(f"ratio to ideal: {one / NODES / nodes:.2f}")
    print(f"ratio to two bare processes: {limit / nodes:.2f}")


def additions_of(seconds: float) -> int:
    """How many additions this machine does in that time, alone."""
    few = 2_000_000
    return int(few * seconds / min(timed(lambda: add(0, few)) for _ in range(3)))


def timed(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def alone(jobs: list[Sum]) -> float:
    from minutia.study.engines import Local

    return performed(jobs, Local(1))


def bare(jobs: list[Sum]) -> float:
    with ProcessPoolExecutor(NODES, mp_context=get_context("spawn")) as pool:
        list(pool.map(add, range(NODES), [1] * NODES))
        return timed(lambda: list(pool.map(add, [j.number for j in jobs], [j.additions for j in jobs])))


def on_nodes(jobs: list[Sum], address: str) -> float:
    """The connection is made before; workers start within the time that is measured."""
    from minutia.study.ray_engine import RayEngine

    with RayEngine(address) as engine:
        return performed(jobs, engine)


def performed(jobs: list[Sum], engine: Any) -> float:
    """Seconds from the call to the last value in the journal."""
    from minutia.storage.models import ModelStore
    from minutia.study.work import perform

    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(Path(folder))
        return timed(lambda: perform(store, jobs, engine))


if __name__ == "__main__":
    main()
