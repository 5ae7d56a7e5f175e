"""The engine for a cluster: jobs as Ray tasks, with all they need sent along, so that nodes share no files.

Ray is the scheduler and nothing else: values and weights come back to the process that called, which alone writes.
"""

import logging
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from minutia.core.errors import FileError, MissingExtraError, ModelError, UsageError
from minutia.storage.data import Dataset, load_dataset, preload
from minutia.storage.files import write_atomically
from minutia.study.work import Job, Made, reason, work

RETRIES = 5
"""How often a unit is started again after its worker or node died; a job that ends its own process ends the run."""
PER_SLOT = 2
"""Units on their way per slot: one that runs and one that waits."""
SHELF_BYTES = 2**30
"""What is kept ready for shipping; beyond that, what was needed longest ago is dropped, and put again when needed."""
SECONDS = 10.0
"""How long to wait for a cluster to answer, and between two looks for nodes that joined."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""One thread per worker, as in local processes: sums are added in an order that depends on the number of threads."""


class RayEngine:
    """Tasks on all nodes of a Ray cluster, one CPU each; without an address, on this machine.

    ``address`` is HOST:PORT of the head node, or ``auto`` for the cluster that this machine belongs to; without one
    the variable RAY_ADDRESS is asked. ``gpus`` is the share of a GPU that a unit takes, where the cluster has any.

    A node that dies costs the units it was doing, which are done again elsewhere; a node that joins is used. Specs
    such as ``torch:module:factory`` name code that must be importable on every node.
    """

    def __init__(self, address: str = "", *, gpus: float = 0.0) -> None:
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise UsageError(f"expected a share of a GPU up to 1 or a whole number of them, got {gpus}: try 0.25")
        self._ray = _ray()
        self._leave = _connected(self._ray, address)
        self._gpus = _share(gpus, self._ray.nodes())
        self._shelf = _Shelf(self._ray.put)
        environment = {**ENVIRONMENT, "MINUTIA_DEVICE": "cuda"} if self._gpus else ENVIRONMENT
        self._task = self._ray.remote(_on_node).options(
            num_cpus=1, num_gpus=self._gpus, max_retries=RETRIES, runtime_env={"env_vars": environment}
        )
        self.workers = self._slots()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; what its nodes were doing is done again next time."""
        self._leave()

    def run(self, root: Path, units: Sequence[Sequence[Job]]) -> Iterator[tuple[Sequence[Job], list[Made]]]:
        """Keep every node busy, with a bounded number of units on their way."""
        waiting, running = iter(units), dict[Any, Sequence[Job]]()
        try:
            while True:
                self.workers = self._slots()
                for unit in islice(waiting, max(0, PER_SLOT * self.workers - len(running))):
                    running[self._started(root, unit)] = unit
                if not running:
                    return
                for ready in self._ray.wait(list(running), num_returns=1, timeout=SECONDS)[0]:
                    yield running.pop(ready), self._result(ready)
        finally:
            if self._ray.is_initialized():  # else any call would start a cluster of its own
                for left in running:
                    self._ray.cancel(left, force=True)

    def _slots(self) -> int:
        """How many units the cluster can do at a time, as it is now."""
        found = self._ray.cluster_resources()
        slots = [found.get("CPU", 0.0), *([found.get("GPU", 0.0) / self._gpus] if self._gpus else [])]
        return max(1, int(min(slots)))

    def _started(self, root: Path, unit: Sequence[Job]) -> Any:
        """Send a unit off with references to its files and data sets, which travel once and not with every unit."""
        names = tuple(dict.fromkeys(name for job in unit for name in job.files))
        specs = tuple(dict.fromkeys(spec for job in unit for spec in job.data_sets))
        files = [self._shelf.shipped(name, partial(_read, root / name)) for name in names]
        data = [self._shelf.shipped(f"{load_dataset(s).digest} {s}", partial(load_dataset, s)) for s in specs]
        return self._task.remote(list(unit), str(Path.cwd()), names, specs, *files, *data)

    def _result(self, ready: Any) -> list[Made]:
        """What a unit gave; an error as it was raised, the cluster's own as one sentence."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(ready)
        except errors.RayTaskError as error:
            ours = isinstance(error.cause, Exception) and not isinstance(error.cause, errors.RayError)
            raise error.cause if ours else _lost(error.cause or error) from error
        except errors.RayError as error:
            raise _lost(error) from error


class _Shelf:
    """References to what was put into the cluster's memory, by name."""

    def __init__(self, put: Callable[[Any], Any]) -> None:
        self._put = put
        self._kept: dict[str, tuple[Any, int]] = {}

    def shipped(self, name: str, load: Callable[[], Any]) -> Any:
        """The reference to a value that is put at most once while there is room."""
        if name in self._kept:
            self._kept[name] = self._kept.pop(name)  # what was needed last comes last
        else:
            value = load()
            self._kept[name] = self._put(value), _size(value)
            while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > SHELF_BYTES:
                self._kept.pop(next(iter(self._kept)))  # units under way hold references of their own
        return self._kept[name][0]


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "the cluster engine") from None
    return ray


def _connected(ray: Any, address: str) -> Callable[[], None]:
    """Join a cluster, or start one on this machine; returns how to leave it.

    A connection that somebody else made in this process is used and left open: there can be only one.
    """
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in ("", "auto", there):
            raise UsageError(f"expected no connection to another cluster, got one to {there}: close that engine first")
        return lambda: None
    where = address or os.environ.get("RAY_ADDRESS", "") or "local"
    try:
        if where not in ("auto", "local") and "://" not in where:
            _knock(where)  # Ray itself would try for minutes and then end this process
        ray.init(
            where,
            include_dashboard=False if where == "local" else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (Exception, SystemExit) as error:
        said = reason(error) if isinstance(error, Exception) else "no answer"
        raise UsageError(
            f"expected a Ray cluster at {where}, got {said}: start one with 'ray start --head' and give its HOST:PORT"
        ) from error
    return ray.shutdown


def _knock(address: str) -> None:
    """Raise unless somebody listens there."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS).close()


def _share(gpus: float, nodes: Sequence[dict[str, Any]]) -> float:
    """The share of a GPU per unit: none where there is no GPU, and never more than one node has."""
    most = max((node["Resources"].get("GPU", 0.0) for node in nodes if node["Alive"]), default=0.0)
    if most and gpus > most:
        raise UsageError(
            f"expected at most {most:g} GPUs per unit, as many as one node has, got {gpus:g}: ask for less"
        )
    return gpus if most else 0.0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"expected a stored model in {path}, got {error.strerror}: build the model again") from error


def _size(value: Dataset | bytes) -> int:
    if isinstance(value, bytes):
        return len(value)
    return sum(a.nbytes for a in (value.inputs, value.labels, value.test_inputs, value.test_labels))


def _lost(error: Exception) -> ModelError:
    """What Ray says, in one sentence."""
    return ModelError(
        f"expected the cluster to finish every unit, got {reason(error)[:200]}: see that every node has the same "
        "packages and your code, then run the same command again, finished models are kept"
    )


# --- on the nodes


def _on_node(unit: list[Job], folder: str, names: tuple[str, ...], specs: tuple[str, ...], *shipped: Any) -> list[Made]:
    """Lay out what was sent along, then do the unit, in the folder of the caller where this node has it."""
    root = _cache()
    for name, content in zip(names, shipped[: len(names)], strict=True):
        _lay(root / name, content)
    for spec, data in zip(specs, shipped[len(names) :], strict=True):
        _preload(spec, data)
    if Path(folder).is_dir():
        os.chdir(folder)
    return work(root, unit)


def _cache() -> Path:
    """The node's own copy of stored files, by content; nobody else may have put anything there."""
    folder = Path(tempfile.gettempdir(), f"minutia-ray-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise FileError(f"expected a folder at {folder}, got {error.strerror}: set TMPDIR on this node") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise FileError(f"expected a folder of your own at {folder}, got one that others can use: delete it")
    return folder


def _lay(path: Path, content: bytes) -> None:
    """Write a file unless it is there; a name stands for its content."""
    if not path.is_file() or path.stat().st_size != len(content):
        write_atomically(path, content)


_here: dict[str, str] = {}


def _preload(spec: str, data: Dataset) -> None:
    """Register a data set once per process, as a copy: Ray's memory is read-only, and models may work in place."""
    if _here.get(spec) != data.digest:
        arrays = {name: getattr(data, name).copy() for name in ("inputs", "labels", "test_inputs", "test_labels")}
        preload(spec, replace(data, **arrays))
        _here[spec] = data.digest
