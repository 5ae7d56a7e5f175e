"""Real processes: exit codes, interrupts, pipes, kills. A few, because each costs a start of Python."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from commands import BUILD, EXTRACT, LIKE, files, minutia

from minutia.storage.models import ModelStore

MINUTIA = (sys.executable, "-m", "minutia")


def started(place, *arguments, **more):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
    # A shell's background jobs ignore Ctrl-C and their children inherit that: a terminal's do not.
    return subprocess.Popen(
        [*MINUTIA, *map(str, arguments)], cwd=place, start_new_session=True, preexec_fn=_hear_ctrl_c, **pipes
    )


def _hear_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finished(place, *arguments):
    child = started(place, *arguments)
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err


@pytest.mark.parametrize(("suspect", "code"), [("owner", 0), ("innocent", 3), ("absent", 2)])
def test_the_process_exits_as_documented(world, suspect, code):
    found, out, err = finished(
        world, "verify", "fp.safetensors", f"toy:{suspect}.safetensors", "--alpha", 0.05, "--json"
    )
    assert found == code
    if code == 2:
        assert out == "" and err.startswith("minutia: expected ") and err.count("\n") == 1
    else:
        assert err == "" and json.loads(out)["outcome"] == {0: "match", 3: "inconclusive"}[code]


def test_a_reader_that_goes_away_is_no_traceback(world):
    child = started(world, "methods", "--json")
    child.stdout.close()
    err = child.stderr.read()
    child.stderr.close()
    assert child.wait() == 2 and "Traceback" not in err and "Exception ignored" not in err


def weights(store):
    return {p: p.stat().st_mtime_ns for p in (store / "models").glob("*.safetensors")}


def waited_for(store, count):
    deadline = time.monotonic() + 30
    while len(weights(store)) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(weights(store)) >= count


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_build_says_so_once_and_continues(place, jobs):
    """Ctrl-C reaches the command and all of its workers; nothing that is finished is lost or made again."""
    slow = ("null", "build", "-o", "new", "-n", 400, *BUILD, "--epochs", 30, "--jobs", jobs)
    child = started(place, *slow)
    waited_for(place / "new", 6)
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert err.splitlines() == ["interrupted: the same command continues where it stopped"]
    kept = weights(place / "new")
    assert 6 <= len(kept) < 400 and not (place / "new" / "zoo.json").exists()
    few = ("null", "build", "-o", "new", "-n", 6, *BUILD, "--epochs", 30, "--spent", 0)
    assert minutia(place, *few).code == 0
    assert {p: weights(place / "new")[p] for p in kept} == kept
    entries = ModelStore(place / "new").manifest()[1]
    assert len(entries) == 6 and all((place / "new" / e.weights).is_file() for e in entries)


def test_an_interrupted_extraction_leaves_the_old_files(place):
    before = files(place)
    child = started(
        place, "extract", "toy:owner.safetensors", "-o", "fp.safetensors", "--derived", "new", *EXTRACT, "--copies", 200
    )
    waited_for(place / "new", 3)
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, ""), err
    assert err.count("\n") == 1
    after = files(place)
    # Opening a journal may tidy its file; what it says is tested elsewhere.
    kept = [n for n in before if "journal" not in n]
    assert {n: after[n] for n in kept} == {n: before[n] for n in kept}
    assert not [n for n in after if n not in before and not n.startswith("new/") and "journal" not in n]


SLOW = """
import time
from torch import nn


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 5)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x):
        time.sleep(0.12)
        return self.layer(x)
"""


def _size(path):
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_verification_keeps_what_was_answered(place, how):
    pytest.importorskip("torch")
    (place / "slow.py").write_text(SLOW)
    command = ("verify", "fp.safetensors", "torch:slow.py:Slow", "--alpha", 0.05, "--json")
    remembered = ("--journal", "work.journal", "--transcript", "said.jsonl")
    child = started(place, *command, *remembered)
    deadline = time.monotonic() + 60
    while not _size(place / "said.jsonl") and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(child.pid, how)
    out, err = child.communicate(timeout=60)
    assert child.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL) and out == ""
    assert err.count("\n") == (how == signal.SIGINT)
    lines = (place / "said.jsonl").read_text().splitlines()
    assert lines and len(lines) < 30
    resumed = minutia(place, *command, *remembered)
    straight = minutia(place, *command)
    assert resumed.code == straight.code == 3 and resumed.out == straight.out
    again = minutia(place, "verify", "fp.safetensors", "said.jsonl", "--alpha", 0.05, "--json")
    one, two = json.loads(straight.out), json.loads(again.out)
    assert one["observation"] == two["observation"] and one["p_value"] == two["p_value"]


def timeless(entry):
    """An entry without the seconds that no two runs share."""
    kept = {name: value for name, value in entry.card.fidelity.items() if name != "seconds"}
    return replace(entry, card=replace(entry.card, fidelity=kept))


def test_a_killed_build_is_the_same_in_the_end(place):
    """kill -9 from outside, then the same command: the manifest is that of an undisturbed build."""
    command = (
        "null",
        "build",
        "--like",
        LIKE,
        "--data",
        "points.npz?rows=0:400",
        "--epochs",
        8,
        "-n",
        40,
        "--spent-halves",
        0,
        "--jobs",
        1,
    )
    child = started(place, *command, "-o", "killed")
    waited_for(place / "killed", 4)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=60)
    for folder in ("killed", "quiet"):
        assert minutia(place, *command, "-o", folder).code == 0
    one, two = (ModelStore(place / folder).manifest() for folder in ("killed", "quiet"))
    assert one[0] == two[0] and list(map(timeless, one[1])) == list(map(timeless, two[1]))
