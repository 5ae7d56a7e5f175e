"""One small world on disk, made by the commands themselves: data, a null, an owner, copies, a fingerprint."""

import shutil

import numpy as np
import pytest
from commands import BUILD, EXTRACT, minutia, toy

from minutia.attacks.compress import Noise
from minutia.core.material import Material
from minutia.core.model import Plan
from minutia.models.toy import ToyClassifier


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """19 calibrators and 6 spent models, an owner with nine copies of every kind, suspects of known origin."""
    folder = tmp_path_factory.mktemp("world")
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
    done = minutia(folder, "null", "build", "-o", "zoo", "-n", 19, *BUILD)
    assert done.code == 0, done.err
    done = minutia(folder, "extract", "toy:owner.safetensors", "-o", "fp.safetensors", "--derived", "copies", *EXTRACT)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def place(world, tmp_path):
    """A copy of the world that a test may spoil."""
    shutil.copytree(world, tmp_path / "place")
    return tmp_path / "place"
