"""Rows as a study makes them, from random numbers instead of models: three methods and seeds, all that occurs."""

from functools import cache

import numpy as np

from minutia.core.fingerprint import HARDEST_RUNG
from minutia.study.table import About, rate, table

IPGUARD = "ipguard(innocent=0.1,margin=0.02,oversample=6,probes=100,rate=0.01,steps=300,target='random')@1"
ERRORS = "natural_errors(probes=100)@1"
NOISE = "noise_agreement(high=1.0,low=0.0,probes=500)@1"
METHODS = {IPGUARD: 100, ERRORS: 37, NOISE: 500}
"""Methods with the number of their probes; the last two are baselines."""
BASELINES = ("natural_errors", "noise_agreement")
SEEDS = (0, 1, 2)
# Chance that a copy is recognised by each of the three methods, and the accuracy that it loses.
ATTACKS = {
    "fine-tuning": {
        "fine_tune_last": (1.0, 0.2, 0.6, 0.0),
        "fine_tune_all": (0.97, 0.1, 0.5, -0.005),
        "retrain_last": (0.9, 0.0, 0.1, 0.012),
        "retrain_all": (0.8, 0.0, 0.1, 0.02),
    },
    "compression": {
        "prune": (0.95, 0.3, 0.5, 0.03),
        "prune(fraction=0.6)+fine_tune_all": (0.9, 0.2, 0.3, 0.015),
        "half": (1.0, 1.0, 1.0, 0.0),
        "quantise/int8": (1.0, 1.0, 0.9, 0.001),
        "noise": (0.97, 0.6, 0.7, 0.01),
    },
    "merging": {"average": (1.0, 0.5, 0.6, 0.004)},
    "laundering": {"permute_units": (1.0, 1.0, 1.0, 0.0), "rescale_units": (1.0, 1.0, 1.0, 0.0)},
    "removal": {
        "boundary_training": (0.5, 0.1, 0.4, 0.03),
        "boundary_training(known=probes)": (0.1, 0.1, 0.4, 0.03),
        "unlearn": (0.0, 0.3, 0.5, 0.15),
    },
    "learning from probabilities": {
        "distil": (0.2, 0.3, 0.1, 0.05),
        "extract_probabilities(student=other)": (0.1, 0.3, 0.0, 0.06),
    },
    "learning from labels": {
        "extract_labels": (0.02, 0.6, 0.05, 0.07),
        "extract_labels(inputs=foreign)": (0.0, 0.1, 0.0, 0.22),
    },
    "serving": {"flip_labels": (0.7, 0.2, 0.3, 0.05), "permute_classes": (0.0, 0.0, 0.0, 0.9)},
}
RUNGS = {
    "other data": 30,
    "same data, other architecture": 30,
    "disjoint data, same recipe": 30,
    "same data, other recipe": 30,
    HARDEST_RUNG: 100,
    "same public ancestor, other fine-tune": 30,
}
CURVES = {
    "fine-tuning steps": ((100, 0.99), (300, 0.95), (1000, 0.8), (3000, 0.5), (10000, 0.15)),
    "pruned fraction": ((0.1, 1.0), (0.3, 1.0), (0.5, 0.95), (0.7, 0.7), (0.9, 0.3), (0.95, 0.0)),
    "data for distillation": ((0.0, 0.3), (100, 0.25), (500, 0.2), (2000, 0.1)),
    "weight of the owner's model": ((0.2, 0.1), (0.5, 0.8), (0.8, 1.0)),
}
REFUSED = "expected probes with the model's 10 classes, got answers of another label space: no rate can be measured"


class Rows:
    """Draws one row at a time."""

    def __init__(self, seed=0):
        self.rng, self.rows, self.number = np.random.default_rng(seed), [], 0

    def add(self, seed, method, chance, **changes):
        self.number += 1
        matched = bool(self.rng.random() < chance)
        score = float(self.rng.beta(9, 2) if matched else self.rng.beta(2, 12))
        asked = METHODS[method]
        needed = int(min(asked, 6 + self.rng.geometric(0.12))) if matched else asked
        p = 0.01 if matched else float(self.rng.uniform(0.02, 1))
        weak = "match" if matched or p <= 0.05 else "inconclusive"
        row = {
            "seed": seed,
            "method": method,
            "truth": "derived",
            "kind": HARDEST_RUNG,
            "label": "",
            "group": "",
            "attack": "",
            "curve": "",
            "x": None,
            "suspect": f"sha256:{self.number:064x}",
            "m": 99,
            "state": "fine",
            "why": "",
            "fidelity": {},
            "outcome": {"0.01": "match" if matched else "inconclusive", "0.05": weak},
            "queries": {"0.01": needed, "0.05": needed},
            "p": {"0.01": p, "0.05": p},
            "ruled_out": {"0.01": ["noise"], "0.05": []},
            "sees": {"0.01": ["noise", "prune"], "0.05": []},
            "score": round(score, 6),
            "path": [round(score, 6)] * 3,
            "agreement": round(score, 3),
            "answered": 1.0,
            "asked": asked,
            "bits": 0.9 if matched else 0.02,
            "seconds": 0.004 + 0.0001 * asked,
            "flags": [] if matched else ["low-power"],
        }
        self.rows.append(row | changes)

    def copy(self, seed, method, chance, lost, **changes):
        lost = round(float(lost + self.rng.normal(0, 0.003)), 4)
        cost = {
            "accuracy_before": 0.96,
            "accuracy": 0.96 - lost,
            "accuracy_lost": lost,
            "agreement": 0.99 - abs(lost),
            "steps": 300.0,
            "seconds": 0.4,
        }
        self.add(seed, method, chance, **{"fidelity": cost, "attack": f"{changes.get('label')}()", **changes})


def apart(rows, seed, method):
    """What is in no rate: destroyed, diverged, not made, not asked."""
    some = {"truth": "derived", "group": "compression", "attack": "prune(fraction=0.99)"}
    nothing = {"score": None, "outcome": {}, "queries": {}, "p": {}, "bits": None, "asked": 0, "path": []}
    for i in range(2):
        who = f"sha256:{seed}{i:063x}"
        rows.copy(seed, method, 0.0, 0.7, label="prune(fraction=0.99)", state="destroyed", suspect=who, **some)
    rows.add(
        seed,
        method,
        0.0,
        label="extract_labels+adversarial_training",
        group="learning from labels",
        attack="extract_labels()+adversarial_training()",
        state="diverged",
        suspect=f"sha256:d{seed:063x}",
        fidelity={"diverged": 1.0},
        **nothing,
    )
    why = "expected batch norms to fold, got a network without any: attack another architecture"
    rows.add(
        seed,
        method,
        0.0,
        label="fold_norms",
        group="laundering",
        attack="fold_norms()",
        state="failed",
        why=why,
        suspect="fold_norms 0",
        **nothing,
    )
    rows.add(
        seed,
        method,
        0.0,
        label="transfer",
        group="another task",
        attack="transfer()",
        state="not-applicable",
        why=REFUSED,
        suspect=f"sha256:e{seed:063x}",
        **nothing,
    )


def one_seed(rows, seed, method, place):
    """Every attack, rung and curve for one method and seed."""
    for group, attacks in ATTACKS.items():
        for label, figures in attacks.items():
            for _ in range(5):
                rows.copy(seed, method, figures[place], figures[3], label=label, group=group)
    for rung, count in RUNGS.items():
        for _ in range(count):
            rows.add(seed, method, 0.005 if place < 2 else 0.02, truth="unrelated", kind=rung)
    for label in ("unlearn", "boundary_training"):
        rows.add(seed, method, 0.0, truth="unrelated", label=label, group="removal", attack=f"{label}()")
    for curve, points in CURVES.items():
        for x, chance in points:
            state = "destroyed" if x == 0.95 else "fine"
            for i in range(2):
                more = {"curve": curve, "x": float(x), "state": state, "label": f"{curve}({x:g})", "group": "curve"}
                more["suspect"] = f"sha256:{curve} {x:g} {seed} {i}"
                rows.copy(seed, method, chance * (1, 0.4, 0.6)[place], 0.002 * len(points), **more)
    apart(rows, seed, method)


def claims():
    """Forged fingerprints on innocent models."""
    found = []
    for claim, threshold, known in (("transferable", 28, False), ("post_hoc", 30, True)):
        for method in METHODS:
            strict = {**rate(0, 30), "rejected": 1, "bound": 4}
            loose = {**rate(2, 30), "rejected": 3, "bound": 5}
            found.append(
                {
                    "claim": claim,
                    "method": method,
                    "seed": 0,
                    "n": 30,
                    "threshold": rate(threshold, 30),
                    "0.01": strict if not known else {**rate(29, 30), "rejected": 29, "bound": 4},
                    "0.05": loose if not known else {**rate(30, 30), "rejected": 30, "bound": 5},
                    "known_suspect": known,
                }
            )
    return found


def fingerprints():
    """What enrolment took."""
    seconds = {IPGUARD: 3.4, ERRORS: 0.05, NOISE: 0.03}
    return [
        {"method": key, "seed": seed, "probes": probes, "m": 99, "seconds": seconds[key], "auxiliary_seconds": 212.0}
        for key, probes in METHODS.items()
        for seed in SEEDS
    ]


FACTS = {
    "methods": ["ipguard"],
    "attacks": ["all"],
    "access": "labels",
    "data": {"owner": "sklearn:digits?rows=0:900", "thief": "sklearn:digits?rows=900:1400"},
    "model": {"architecture": "torch:minutia.study.architectures:digits_cnn", "epochs": 12},
    "counts": {"calibrators": 99, "spent": 20, "copies": 5, "innocents": 100},
}


def about(**changes):
    base = {
        "name": "digits",
        "seeds": SEEDS,
        "baselines": BASELINES,
        "facts": FACTS,
        "date": "2030-01-31",
        "fingerprints": fingerprints(),
        "claims": claims(),
    }
    return About(**(base | changes))


@cache
def rows(seed=0):
    """All rows; never changed."""
    drawn = Rows(seed)
    for place, method in enumerate(METHODS):
        for number in SEEDS:
            one_seed(drawn, number, method, place)
    return drawn.rows


@cache
def whole(seed=0):
    """A table with everything in it; never changed."""
    return table(about(), rows(seed))


@cache
def empty():
    """A table of a study that judged nobody."""
    return table(about(fingerprints=[], claims=[]), [])


@cache
def failed():
    """A table in which one of two methods could not be enrolled."""
    kept = [row for row in rows() if row["method"] != NOISE]
    broken = [
        {k: row[k] for k in ("seed", "truth", "kind", "label", "group", "attack", "curve", "x", "suspect")}
        | {"method": IPGUARD, "fidelity": {}, "state": "failed", "why": "expected gradients, got a model without"}
        if row["method"] == IPGUARD
        else row
        for row in kept
    ]
    prints = [{"method": IPGUARD, "seed": s, "failed": "expected gradients, got a model without"} for s in SEEDS]
    prints += [f for f in fingerprints() if f["method"] == ERRORS]
    return table(about(fingerprints=prints), broken)


def renamed(text, seed=0):
    """The same table with every foreign name replaced by hostile text."""
    drawn = [
        {**row, "label": row["label"] and text + row["label"], "why": row["why"] and text, "group": text + row["group"]}
        | ({"kind": text + row["kind"]} if row["kind"] != HARDEST_RUNG else {})
        | ({"curve": text + row["curve"]} if row["curve"] else {})
        for row in rows(seed)
    ]
    said = [{**claim, "claim": text} for claim in claims()]
    return table(about(name=text, facts={text: {"deep": [text]}}, claims=said), drawn)
