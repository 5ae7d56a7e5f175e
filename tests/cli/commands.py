"""Run command lines inside a folder, and look at everything they leave behind."""

import io
import os
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.numpy import save_file

from minutia.cli import run
from minutia.models.toy import ToyClassifier

METHOD = "ipguard(probes=30,oversample=6)"
LIKE = "toy:mlp?sizes=16-12-5&seed=0"
TRAINING, THIEF = "points.npz?rows=0:400", "points.npz?rows=400:600"
BUILD = ("--like", LIKE, "--data", TRAINING, "--epochs", "8", "--jobs", "1", "--spent", "6")
EXTRACT = ("--data", TRAINING, "--attack-data", THIEF, "--unrelated", "zoo", "--jobs", "1", "--method", METHOD)


@dataclass
class Done:
    """What one command line left behind."""

    code: int
    out: str
    err: str
    made: set[str] = field(default_factory=set)

    @property
    def sentence(self) -> str:
        """The one clear sentence of an error: expected, got, remedy; nothing else on either stream."""
        assert self.code == 2, self
        assert self.out == "", self
        (line,) = self.err.splitlines()
        assert line.startswith("minutia: ") and len(line) < 700, line
        text = line.removeprefix("minutia: ")
        assert text.startswith("expected ") and (" got " in text or " found " in text), text
        return text


@contextmanager
def inside(folder: Path):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def minutia(folder: Path, *arguments: object) -> Done:
    """Run one command line inside a folder."""
    before = files(folder)
    out, err = io.StringIO(), io.StringIO()
    with inside(folder), redirect_stdout(out), redirect_stderr(err):
        code = run([str(a) for a in arguments])
    return Done(code, out.getvalue(), err.getvalue(), made=set(files(folder)) - set(before))


def files(folder: Path) -> dict[str, bytes]:
    """Every file and its content; SQLite's own side files come and go."""
    found = (p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(("-wal", "-shm")))
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def toy(weights_from: ToyClassifier, path: Path) -> None:
    save_file(dict(weights_from.tensors()), path)
