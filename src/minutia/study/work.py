"""Jobs: pieces of work that are done once, whatever happens: named by content, kept when finished, on any engine.

A job's digest names everything that changes its result. Results (plain data and files) are written by the process that
called ``perform``, files first and the journal last, so a kill at any moment loses at most the jobs under way, and the
same call continues. Workers only read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self

from minutia.core import errors
from minutia.core.errors import FileError, MinutiaError, MissingExtraError, ModelError
from minutia.storage.models import ModelStore

MOST_TOGETHER = 32
"""Jobs that one worker takes at a time: enough to share what they have in common, few enough to lose little."""
FAILED = "failed "
"""Failures have keys of their own: a key keeps its first value, and a job that failed may succeed one day."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Made:
    """What a job gives: plain data for the journal, and files by their name inside the store."""

    value: dict[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


class Job(Protocol):
    """One piece of work. ``files`` are the store's files it reads, ``data_sets`` the specs of the data sets it loads.

    Jobs of one type with the same non-empty ``bundle`` may be done in one go; their results must not depend on that.
    """

    @property
    def digest(self) -> str:
        """Digest of everything that changes the result."""
        ...

    @property
    def label(self) -> str:
        """What is being done, for people who wait."""
        ...

    @property
    def bundle(self) -> str:
        """What jobs that may be done together have in common."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Names of files in the store."""
        ...

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Specs of data sets."""
        ...

    @classmethod
    def make(cls, root: Path, jobs: Sequence[Self]) -> list[Made]:
        """Do the jobs; ``root`` is a store, or a copy of it that holds their files."""
        ...


class Engine(Protocol):
    """Something that does jobs: this process, others on this machine, or a cluster."""

    workers: int

    def run(self, root: Path, units: Sequence[Sequence[Job]]) -> Iterator[tuple[Sequence[Job], list[Made]]]:
        """Do every unit (jobs of one bundle), yielding each as it is finished, in any order."""
        ...


def perform(
    store: ModelStore,
    jobs: Sequence[Job],
    engine: Engine,
    *,
    progress: Progress | None = None,
    tolerant: bool = False,
) -> list[dict[str, Any]]:
    """Do all jobs that are not done yet and return the values of all, in the order of the jobs.

    A job that cannot be done raises; with ``tolerant`` its value says why (``{"failed": sentence}``) and is kept.
    """
    named = {job.digest: job for job in jobs}
    done = store.results(named)
    if tolerant:
        failed = store.results(FAILED + digest for digest in named if digest not in done)
        done |= {key.removeprefix(FAILED): value for key, value in failed.items()}
    todo = [job for digest, job in named.items() if digest not in done]
    _tell(progress, len(done), len(named), "")
    for unit, made in engine.run(store.root, bundled(todo, engine.workers)) if todo else ():
        for job, one in zip(unit, made, strict=True):
            if "failed" in one.value and not tolerant:
                raise failure(one.value)
            key = FAILED + job.digest if "failed" in one.value else job.digest
            store.keep(key, one.value, one.files)
            done[job.digest] = one.value
            _tell(progress, len(done), len(named), job.label)
    return [done[job.digest] for job in jobs]


def bundled(jobs: Sequence[Job], workers: int) -> list[list[Job]]:
    """Jobs grouped by bundle, in shares that keep all workers busy.

    The order is kept: long jobs that come first are started first.
    """
    groups: dict[tuple[type[Any], str], list[Job]] = {}
    for number, job in enumerate(jobs):
        groups.setdefault((type(job), job.bundle or f"alone {number}"), []).append(job)
    units = []
    for members in groups.values():
        most = max(1, min(MOST_TOGETHER, -(-len(members) // (2 * workers))))
        rest = iter(members)
        while unit := list(islice(rest, most)):
            units.append(unit)
    return units


def work(root: Path, unit: Sequence[Job]) -> list[Made]:
    """Do one unit; where it fails, job by job, so that one broken job spoils no other."""
    kind = type(unit[0])
    try:
        return kind.make(root, unit)
    except (FileError, MissingExtraError, ImportError, OSError, MemoryError):
        raise  # the machine's fault, not the job's: nothing to remember
    except Exception as error:
        if len(unit) > 1:
            return [made for job in unit for made in work(root, [job])]
        return [Made({"failed": reason(error), "error": type(error).__name__})]


def failure(value: Mapping[str, Any]) -> MinutiaError:
    """The error that a job ended with, as it was raised where that was one of ours."""
    kind = getattr(errors, str(value.get("error")), ModelError)
    ours = isinstance(kind, type) and issubclass(kind, MinutiaError) and kind is not errors.MissingExtraError
    return (kind if ours else ModelError)(str(value["failed"]))


def reason(error: Exception) -> str:
    """Why a job could not be done, in one line."""
    said = str(error) if isinstance(error, MinutiaError) else f"{type(error).__name__}: {error}"
    return " ".join(said.split())[:400]


def _tell(progress: Progress | None, done: int, total: int, what: str) -> None:
    if progress is not None:
        progress(done, total, what)
