"""Engines that do jobs: this process, several processes on this machine, a Ray cluster."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from minutia.core.errors import ModelError, UsageError
from minutia.core.keys import did_you_mean
from minutia.study.work import Job, Made, work

FEW = 4
"""Units below which new processes would cost more than they bring."""


class Local:
    """Several processes with one thread each; the pool stays for the next call until the engine is closed."""

    def __init__(self, jobs: int = 0) -> None:
        self.workers = jobs or min(os.cpu_count() or 1, 8)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes; what they were doing is done again next time."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def run(self, root: Path, units: Sequence[Sequence[Job]]) -> Iterator[tuple[Sequence[Job], list[Made]]]:
        """In this process if there is little to do, else in several with one thread each."""
        if self.workers == 1 or (self._pool is None and sum(map(len, units)) < FEW):
            yield from ((unit, work(root, unit)) for unit in units)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"), initializer=_one_thread)
        with _deaf_to_ctrl_c():
            running: dict[Future[list[Made]], Sequence[Job]] = {self._pool.submit(work, root, u): u for u in units}
        try:
            for future in as_completed(running):
                yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            self._pool = None
            raise ModelError(
                "expected every worker process to finish, got one that was killed (out of memory?): "
                "run the same command again, finished models are kept"
            ) from error
        except BaseException:
            self.close()  # waits: leaving the pool open would take the cancelling back
            raise


def engine(name: str = "local", *, jobs: int = 0, address: str = "", gpus: float = 0.0) -> Any:
    """The engine of that name: ``local`` with so many processes (0: one per core), or ``ray`` at an address."""
    if name not in ("local", "ray"):
        raise UsageError(f"expected engine local or ray, got {name!r}{did_you_mean(name, ('local', 'ray'))}")
    if name == "local":
        if address or gpus:
            raise UsageError("expected --address and --gpus with --engine ray only, got them with local processes")
        return Local(jobs)
    from minutia.study.ray_engine import RayEngine

    return RayEngine(address, gpus=gpus)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, which reaches the whole group: the parent ends their work."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would lift the block while it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _one_thread() -> None:
    """Several processes with several threads each would only wait for one another; read when torch is loaded."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


def _leave_with(parent: int) -> None:
    """End this worker when its parent is gone: nobody would note what it makes."""
    while os.getppid() == parent:
        Event().wait(1.0)
    os._exit(1)
