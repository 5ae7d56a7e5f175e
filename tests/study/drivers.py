"""Programs that tests start, kill and start again: a small zoo built on some engine, every execution written down."""

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minutia.core.model import Plan
from minutia.storage.data import Dataset, preload
from minutia.storage.models import ModelStore
from minutia.study import zoo
from minutia.study.engines import engine

SPECS = {
    "toy": ("toy:mlp?sizes=8-64-3&seed=0", Plan(2000, batch_size=16, learning_rate=1e-2)),
    "torch": ("torch:minutia.study.architectures:digits_mlp", Plan(2)),
}


@dataclass(frozen=True)
class Logged(zoo.Task):
    """A task that appends ``run process digest`` to a file whenever it is done."""

    log: str = ""
    run: str = ""

    @classmethod
    def make(cls, root, jobs):
        with Path(jobs[0].log).open("a") as file:  # short lines that are appended never mix
            file.write("".join(f"{job.run} {os.getpid()} {job.digest}\n" for job in jobs))
        return super().make(root, jobs)


def points(path):
    """120 points of three classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    inputs = rng.random((3, 8))[labels] + rng.normal(0, 0.2, (120, 8))
    np.savez(path, x_train=inputs.astype(np.float32), y_train=labels)
    return str(path)


def preloaded(spec):
    """The same kind of points under a spec that no file stands behind."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 120)
    inputs = (rng.random((3, 8))[labels] + rng.normal(0, 0.2, (120, 8))).astype(np.float32)
    preload(spec, Dataset(spec, inputs[:100], labels[:100], inputs[100:], labels[100:], (-1.0, 2.0), None, "tabular"))


def tasks_of(kind, data, log, run="", parent=None):
    """The owner, or 12 unrelated models and 8 copies of the owner."""
    spec, plan = SPECS[kind]
    if parent is None:
        found = [zoo.Task("owner", "owner", spec, data, 7, plan)]
    else:
        found = zoo.unrelated_tasks(spec, data, 12, role="calibrator", rung="a rung", plan=plan, seed=0)
        found += zoo.derived_tasks(parent, data, ["noise(strength=0.1)", "fine_tune_all()"], 4, role="control", seed=0)
    return [Logged(**{**vars_of(task), "log": log, "run": run}) for task in found]


def vars_of(task):
    return {name: getattr(task, name) for name in task.__dataclass_fields__}


def plain(entries):
    """Entries as plain data without the one thing that differs between runs: how long it took."""
    cards = [replace(e.card, fidelity={k: v for k, v in e.card.fidelity.items() if k != "seconds"}) for e in entries]
    return [replace(e, card=card).plain() for e, card in zip(entries, cards, strict=True)]


def build(root, kind, data, log, run, made_by, progress=None):
    """The whole zoo: entries of the owner and of everybody else."""
    store = ModelStore(Path(root))
    first = zoo.build(store, tasks_of(kind, data, log, run), engine=made_by)
    return first + zoo.build(store, tasks_of(kind, data, log, run, first[0]), engine=made_by, progress=progress)


def told(done, total, what):
    sys.stdout.write(f"{done}\n")
    sys.stdout.flush()


def main():
    """``ROOT KIND DATA LOG RUN ENGINE ADDRESS``: print what is done, and the entries at the end."""
    root, kind, data, log, run, name, address = sys.argv[1:]
    if data == "elsewhere":
        preloaded(data)
    with engine(name, jobs=2 if name == "local" else 0, address=address) as made_by:
        entries = build(root, kind, data, log, run, made_by, told)
    sys.stdout.write(json.dumps(plain(entries)))


if __name__ == "__main__":
    main()
