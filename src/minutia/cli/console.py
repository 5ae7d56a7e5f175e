"""What commands share: printing results, progress on stderr, reading a method's parameters."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUIET = False
Progress = Callable[[int, int, str], None]


def stdout() -> Any:
    """A console for results; plain text off a terminal and with NO_COLOR, 100 columns wide off a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 100, highlight=False)


def say(text: str) -> None:
    """A remark for people, on stderr."""
    if not QUIET:
        print(text, file=sys.stderr)  # noqa: T201


def put(text: str, output: Path | None) -> None:
    """The result: to a file, written atomically, or to stdout."""
    if output is None:
        print(text)  # noqa: T201
        return
    from minutia.storage.files import write_atomically

    write_atomically(output, (text + "\n").encode(), private=False)


def check_output(path: Path | None, *inputs: str | Path | None) -> None:
    """Refuse a place that cannot be written, or that is one of the inputs, before any work is done for it."""
    if path is None:
        return
    from minutia.core.errors import UsageError

    place = path.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if (path.exists() and not path.is_file()) or not place.is_dir() or not _writable(place):
        raise UsageError(f"expected a file that can be written, got {path}: choose another place for the output")
    for given in inputs:
        if given and path.exists() and any(_same(path, part) or _holds(part, path) for part in _paths(str(given))):
            raise UsageError(f"expected an output that is no input, got {path} as both: choose another name for it")


def _writable(place: Path) -> bool:
    """Whether a file can be made there; the rights alone do not tell, least of all to root."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=place):
            return os.access(place, os.W_OK)
    except OSError:
        return False


def _paths(spec: str) -> list[str]:
    """What may be a path in a spec such as torch:module:factory?weights=FILE."""
    place, _, query = spec.partition("?")
    return [place, place.partition(":")[2], *(option.partition("=")[2] for option in query.split("&"))]


def _holds(folder: str, path: Path) -> bool:
    """Whether a folder that is read holds the file."""
    return bool(folder) and Path(folder).is_dir() and path.resolve().is_relative_to(Path(folder).resolve())


def _same(path: Path, other: str) -> bool:
    try:
        return bool(other) and Path(other).exists() and path.samefile(other)
    except (OSError, ValueError):
        return False


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A progress bar with an estimate on stderr; silent off a terminal, with NO_COLOR or --quiet."""
    if QUIET or not sys.stderr.isatty() or "NO_COLOR" in os.environ:
        yield lambda done, total, what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=f"{title} {what}")
