"""A table as the demo makes it, from random numbers instead of models: 99 nulls, 30 copies, 20 innocents."""

from dataclasses import replace

import numpy as np
import pytest

from minutia.core.answers import Answers, Observation
from minutia.core.fingerprint import HARDEST_RUNG, THREATS, Fingerprint, Null
from minutia.core.method import looks_for
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.core.verdict import Verdict
from minutia.report.rows import Row

COUNT, CLASSES, NULLS, CONTROLS = 100, 10, 99, 9
LOOKS = looks_for(COUNT)
METHOD = "ipguard(innocent=0.1,margin=0.02,oversample=6,probes=100,rate=0.01,steps=300,target='random')@1"
H0 = "the suspect was trained without my model: it is one more model of the null's population"
SOURCE = "99 models like torch:minutia.study.architectures:digits_cnn on sklearn:digits?rows=0:900"
POWER = dict.fromkeys(THREATS, 1.0) | {"retrain-last": 8 / 9, "distil": 2 / 9, "extract-labels": 0.0}
SURVIVES = dict(zip(THREATS, (1.0, 0.97, 0.9, 0.96, 1.0, 0.95, 0.28, 0.15), strict=True))
RUNGS = {HARDEST_RUNG: 8, "other architecture, same data": 6, "same architecture, disjoint data": 6}
DIGEST = "sha256:" + "0123456789abcdef" * 4


def card(name, root, parents=(), **fidelity):
    return ModelCard(f"sha256:{name}", root, "recipe", parents, fidelity)


def verdict(**changes):
    """A verdict as the judge writes it, a match unless told otherwise."""
    base = Verdict(
        outcome="match",
        question="origin",
        h0=H0,
        method=METHOD,
        score=1.0,
        p_value=0.01,
        p_floor=0.01,
        null_kind="rank",
        null_size=NULLS,
        null_source=SOURCE,
        null_rung=HARDEST_RUNG,
        e_value=5.0,
        alpha=0.01,
        asked=6,
        answered=6,
        look=6,
        ruled_out=(),
        blind_to=("distil", "extract-labels"),
        untested=(),
        power=POWER,
        flags=(),
        reasons=(f"an independent model ({HARDEST_RUNG}) would look this similar with probability at most 0.01",),
        fingerprint=DIGEST,
        observation=DIGEST.replace("0", "f"),
        null_digest=DIGEST.replace("1", "e"),
        suspect=card("suspect", "owner", ("sha256:owner",)),
        path=((6, 1.0),),
    )
    return replace(base, **changes)


def path_of(rate, rng):
    """Match rates at all looks of a suspect that matches each probe with this probability."""
    return np.cumsum(rng.random(COUNT) < rate)[np.array(LOOKS) - 1] / np.array(LOOKS)


def judged(rate, null, suspect, rng):
    """What the judge would say, with the path test replaced by the maximum at each look."""
    path = path_of(rate, rng)
    beaten = np.flatnonzero((path > null.max(axis=0)) & (path >= 0.6))
    last = int(beaten[0]) if len(beaten) else len(LOOKS) - 1
    found = dict.fromkeys(("asked", "answered", "look"), LOOKS[last]) | {"suspect": suspect, "score": float(path[last])}
    found["path"] = tuple((n, float(s)) for n, s in zip(LOOKS[: last + 1], path, strict=False))
    found["observation"] = f"sha256:{rng.integers(2**60):064x}"
    if len(beaten):
        return verdict(**found)
    exceeding = int(np.sum(null[:, -1] >= path[-1]))
    p = (1 + exceeding) / (1 + len(null))
    why = (f"the answers are not unlike those of unrelated models (p = {p:.4g} > alpha 0.01)",)
    flags = ("weak-resemblance",) if p <= 0.01 else ()
    out = () if flags else tuple(kind for kind, share in POWER.items() if share >= 0.5)
    return verdict(
        outcome="inconclusive", p_value=p, e_value=0.5 / p**0.5, ruled_out=out, flags=flags, reasons=why, **found
    )


def make(seed=0):
    """Rows, fingerprint, null, and the null's paths."""
    rng = np.random.default_rng(seed)
    null = np.array([path_of(rate, rng) for rate in np.clip(rng.beta(2, 30, NULLS), 0, 0.2)])
    suspects = []
    for kind in THREATS:
        for _ in range(3):
            lost = abs(rng.normal(0, 0.01)) + (kind == "prune") * 0.02
            copy = card(
                f"{rng.integers(2**40):x}", "owner", ("sha256:owner",), accuracy_lost=lost, agreement=0.99 - lost
            )
            suspects.append(("derived", kind, SURVIVES[kind], copy))
    for rung, count in RUNGS.items():
        for _ in range(count):
            name = f"{rng.integers(2**40):x}"
            suspects.append(("unrelated", rung, float(rng.beta(2, 30)), card(name, name)))
    rows = []
    for number, (truth, kind, rate, who) in enumerate(suspects, 1):
        found = judged(rate, null, who, rng)
        rows.append(Row(f"suspect-{number:02d}", truth, kind, found, who.fidelity))
    return rows, fingerprint(rng), unrelated(rng), null


def fingerprint(rng):
    probes = numbered(rng.random((COUNT, 4)).astype(np.float32), {"channel": "array"})
    labels = rng.integers(0, CLASSES, COUNT)
    owner = ModelCard("sha256:owner", "owner", "recipe")
    seen = Observation(owner, probes.ids, Answers.from_labels(labels), probes.digest)
    copies = dict.fromkeys(THREATS, (seen,) * CONTROLS)
    return Fingerprint(
        method=METHOD,
        question="origin",
        owner=owner,
        probes=probes,
        answers=seen.answers,
        arrays={},
        controls={"owner": (seen,), **copies},
        reference=(),
        spent=frozenset(),
        schedule=LOOKS,
        threats=THREATS,
        binds=("content", "order", "channel"),
        seed=0,
    )


def unrelated(rng):
    ids = numbered(np.zeros((COUNT, 1)), {}).ids
    answers = [Answers.from_labels(rng.integers(0, CLASSES, COUNT)) for _ in range(NULLS)]
    seen = tuple(Observation(card(f"n{i}", f"n{i}"), ids, a, "protocol") for i, a in enumerate(answers))
    return Null("unrelated", seen, HARDEST_RUNG, SOURCE)


@pytest.fixture(scope="session")
def demo():
    """Rows, fingerprint, null and null paths of a whole demo; never changed."""
    return make()


@pytest.fixture(scope="session")
def one():
    """Makes a verdict with some fields changed."""
    return verdict
