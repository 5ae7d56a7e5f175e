"""Run command lines inside a folder, and look at everything they leave behind."""

import io
import os
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from minutia.attacks.compress import Noise
from minutia.cli import run
from minutia.core.material import Material
from minutia.core.model import Plan
from minutia.models.toy import ToyClassifier

METHOD = "ipguard(probes=30,oversample=6)"
LIKE = "toy:mlp?sizes=16-12-5&seed=0"
TRAINING, THIEF = "points.npz?rows=0:400", "points.npz?rows=400:600"
BUILD = ("--like", LIKE, "--data", TRAINING, "--epochs", "8", "--jobs", "1", "--spent", "6", "--spent-halves", "0")
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


def people(folder):
    """Data, an owner, a noisy copy of him and an innocent model, as files in a folder."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 5, 700)
    points = np.clip(rng.random((5, 16))[labels] + rng.normal(0, 0.4, (700, 16)), 0, 1)
    x = np.rint(points * 255).astype(np.uint8)
    np.savez(folder / "points.npz", x_train=x[:600], y_train=labels[:600], x_test=x[600:], y_test=labels[600:])
    inputs = (x / np.float32(255)).astype(np.float32)

    def trained(seed):
        plan = Plan(8, learning_rate=4e-3, reset="everything")
        return ToyClassifier.fresh((16, 12, 5)).trained(inputs[:400], labels[:400], plan, seed)

    owner = trained(99)
    thief = Material(inputs[400:600], labels[400:600], levels=256)
    toy(owner, folder / "owner.safetensors")
    toy(Noise().apply(owner, thief, np.random.default_rng(5)), folder / "copy.safetensors")
    toy(trained(98), folder / "innocent.safetensors")
