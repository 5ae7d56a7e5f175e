"""One small world on disk, made by the commands themselves: data, a null, an owner, copies, a fingerprint."""

import shutil

import pytest
from commands import BUILD, EXTRACT, minutia, people


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """19 calibrators and 6 spent models, an owner with nine copies of every kind, suspects of known origin."""
    folder = tmp_path_factory.mktemp("world")
    people(folder)
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
