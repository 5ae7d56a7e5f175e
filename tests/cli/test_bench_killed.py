"""minutia bench killed again and again: the table is that of a run nobody disturbed, and nothing is done twice."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import minutia
from test_bench_command import STUDY

from minutia.storage.journal import SqliteJournal
from minutia.storage.tables import load_table

pytestmark = pytest.mark.slow
COMMAND = (sys.executable, "-m", "minutia", "bench", "small.toml", "--jobs", "2")


@pytest.fixture
def place(tmp_path):
    rng = np.random.default_rng(1910)
    labels = rng.integers(0, 5, 600)
    images = rng.random((5, 1, 4, 4))[labels] + rng.normal(0, 0.4, (600, 1, 4, 4))
    np.savez(tmp_path / "points.npz", x_train=np.clip(images, 0, 1).astype(np.float32), y_train=labels)
    text = STUDY.replace('["noise", "labels_only"]', '["noise", "distil", "unlearn", "flip_labels"]')
    (tmp_path / "small.toml").write_text(text.replace("ancestor_epochs = 0", "ancestor_epochs = 1"))
    return tmp_path


def noted(folder):
    """Every finished job with its result: what a later run must not touch."""
    if not (folder / "journal.sqlite").is_file():
        return {}
    with SqliteJournal(folder / "journal.sqlite") as journal:
        return dict(journal._database.execute("SELECT key, value FROM entry"))


def test_kills_change_nothing(place):
    folder = place / "killed"
    seen, kills = {}, 0
    for more in (5, 30, 40, 10**9):
        child = subprocess.Popen(
            [*COMMAND, "--dir", folder], cwd=place, start_new_session=True, stdout=subprocess.DEVNULL
        )
        while child.poll() is None and len(noted(folder)) < len(seen) + more:
            time.sleep(0.02)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            kills += 1
        child.wait()
        now = noted(folder)
        assert all(now[key] == value for key, value in seen.items()), "a finished job was done again"
        seen = now
    assert child.returncode == 0 and kills >= 1
    quiet = minutia(place, "bench", "small.toml", "--jobs", "1", "--dir", "quiet")
    assert quiet.code == 0
    tables = [load_table(place / name / "table.json") for name in ("killed", "quiet")]
    assert tables[0]["digest"] == tables[1]["digest"]
    assert noted(folder).keys() == noted(place / "quiet").keys()
