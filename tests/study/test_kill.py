"""Killed at any moment, the same call continues: nothing that was noted is made again, the end is the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import drivers
import numpy as np
import pytest

from minutia.storage.models import ModelStore
from minutia.study.engines import Local

pytestmark = pytest.mark.slow
KILLS = 6


class Story:
    """One store, built by one process after another."""

    def __init__(self, root, kind, data):
        self.root, self.kind, self.data, self.log = root, kind, data, root.parent / f"{root.name}.log"
        self.log.touch()
        self.runs = 0

    def start(self):
        """A process group of its own, so that a kill of the group leaves nobody."""
        self.runs += 1
        arguments = [self.root, self.kind, self.data, self.log, str(self.runs), "local", ""]
        return subprocess.Popen(
            [sys.executable, drivers.__file__, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def digests(self):
        """Of every job of the zoo; the owner's entry is needed to name his copies."""
        store = ModelStore(self.root)
        first = drivers.tasks_of(self.kind, self.data, "")
        known = store.results(job.digest for job in first)
        if not known:
            return [job.digest for job in first]
        (value,) = known.values()
        owner = drivers.zoo.Entry.from_plain(value["entry"])
        return [job.digest for job in first + drivers.tasks_of(self.kind, self.data, "", parent=owner)]

    def noted(self):
        """Digests of jobs that the journal knows."""
        return set(ModelStore(self.root).results(self.digests())) if self.root.is_dir() else set()

    def executed(self, run):
        """Process and digest of every execution in that run."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(int(process), digest) for number, process, digest in lines if number == str(run)]


def weights(root):
    return {path.name: path.read_bytes() for path in (root / "models").iterdir() if path.suffix == ".safetensors"}


def undisturbed(tmp_path, kind, data):
    """Entries and weights of a build that nobody disturbed, in this process."""
    root = tmp_path / "quiet"
    entries = drivers.build(root, kind, data, str(tmp_path / "quiet.log"), "", Local(1))
    return drivers.plain(entries), weights(root)


def seen(child, count):
    """Wait until the child has said so often that something is done."""
    for _ in range(count):
        child.stdout.readline()


def gone(processes, within=15.0):
    """Whether all of them have ended (or wait to be buried) in that time."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not any(_runs(process) for process in processes):
            return True
        time.sleep(0.1)
    return False


def _runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def data_of(tmp_path, kind):
    if kind == "toy":
        return drivers.points(tmp_path / "points.npz")
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    return "sklearn:digits"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are watched through /proc")
@pytest.mark.parametrize("whom", ["everybody", "the parent"])
@pytest.mark.parametrize("kind", ["toy", "torch"])
def test_a_zoo_whose_builders_are_killed_again_and_again(tmp_path, kind, whom):
    data, draw = data_of(tmp_path, kind), np.random.default_rng([len(kind), len(whom)])
    story, before, interrupted = Story(tmp_path / "killed", kind, data), [set()], 0
    for kill in range(KILLS):
        child = story.start()
        if kill % 2:
            seen(child, 2 + kill // 2)  # in the middle of the work; else at any moment from the very start
        time.sleep(draw.random() * (0.2 if kill % 2 else 1.5))
        (os.killpg if whom == "everybody" else os.kill)(child.pid, signal.SIGKILL)
        interrupted += child.wait() == -signal.SIGKILL
        child.stdout.close()
        assert gone({process for process, _ in story.executed(story.runs)}), "workers leave with their parent"
        before.append(story.noted())
    child = story.start()
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 0 and interrupted >= KILLS // 2

    for run, known in enumerate(before, start=1):
        again = known & {digest for _, digest in story.executed(run)}
        assert not again, f"run {run} did again what was noted before it"
    assert len(before[-1]) > 1, "kills came before anything was finished: nothing was tested"
    entries, files = undisturbed(tmp_path, kind, data)
    assert json.loads(out.splitlines()[-1]) == entries
    assert weights(story.root) == files
