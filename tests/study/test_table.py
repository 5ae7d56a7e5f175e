"""The table: rates counted by hand from a few rows."""

import json
from copy import deepcopy
from itertools import count

import pytest

from minutia.core.fingerprint import HARDEST_RUNG
from minutia.stats.intervals import clopper_pearson
from minutia.stats.nulls import type_one_bound_over
from minutia.study.table import About, digest, rate, table

ABOUT = About("by hand", (1, 2), ("plain",), {"counts": 3}, "2026-01-01", (), ())


NUMBERS = count()


def row(label="prune", *, match=True, queries=6, state="fine", seed=1, method="clever()@1", **more):
    """One suspect and one method, a model of its own; convicted at both levels or at none."""
    outcome = "match" if match else "inconclusive"
    base = {
        "seed": seed,
        "method": method,
        "truth": "derived",
        "kind": label,
        "label": label,
        "group": "compression",
        "attack": f"{label}()",
        "curve": "",
        "x": None,
        "suspect": f"{label} {next(NUMBERS)}",
        "state": state,
        "fidelity": {"accuracy_lost": 0.03, "agreement": 0.9, "accuracy": 0.8},
    }
    if state in ("fine", "destroyed"):
        base |= {
            "outcome": {"0.01": outcome, "0.05": "match"},
            "queries": {"0.01": queries, "0.05": 6},
            "p": {"0.01": 0.01 if match else 0.2, "0.05": 0.01},
            "ruled_out": {"0.01": [] if match else ["prune"], "0.05": []},
            "sees": {"0.01": ["noise", "prune"], "0.05": ["noise", "prune"]},
            "score": 0.9 if match else 0.1,
            "bits": 2.0,
            "asked": 100,
            "m": 99,
            "seconds": 0.5,
        }
    return base | more


def innocent(kind=HARDEST_RUNG, *, match=False, **more):
    found = row(match=match, **{"truth": "unrelated", "kind": kind, "label": "", "attack": "", "group": "", **more})
    return found | {"outcome": {"0.01": found["outcome"]["0.01"], "0.05": "match" if match else "inconclusive"}}


def method(rows, about=ABOUT):
    (found,) = table(about, rows)["methods"]
    return found


def test_rates_carry_exact_intervals():
    low, high = clopper_pearson(9, 12)
    assert rate(9, 12) == {"hits": 9, "n": 12, "rate": 0.75, "low": low, "high": high}


def test_an_attack_counts_only_copies_that_are_worth_stealing():
    rows = [
        row(queries=6),
        row(queries=10),
        row(match=False, queries=100),
        row(state="destroyed"),
        row(state="diverged"),
        row(state="failed", why="no reason"),
        row(state="not-applicable", why="other classes"),
        innocent(),
    ]
    (attack,) = method(rows)["attacks"]
    assert (attack["n"], attack["destroyed"], attack["diverged"]) == (3, 1, 1)
    assert (attack["failed"], attack["not_applicable"]) == (1, 1)
    assert attack["tpr"]["0.01"] == rate(2, 3) and attack["tpr"]["0.05"] == rate(3, 3)
    assert attack["inconclusive"] == rate(1, 3) and attack["no_match"] == rate(0, 3)
    assert (attack["queries_median"], attack["bits_per_query"]) == (8, 2.0)
    assert attack["auc"] == pytest.approx((1 + 1 + 0.5) / 3)  # the third scores like the innocent
    assert attack["why"] == ["no reason", "other classes"]


def test_a_copy_that_was_made_twice_counts_once():
    twins = [row(suspect="twin", observation="o"), row(suspect="twin", observation="o")]
    served = [row("flip_labels", suspect="served", observation=o) for o in "abb"]
    innocents = [innocent(suspect="one"), innocent(suspect="one")]
    found = method([*twins, *served, *innocents])
    assert [(a["attack"], a["n"]) for a in found["attacks"]] == [("prune", 1), ("flip_labels", 2)]
    assert found["rungs"][0]["n"] == 2


def test_what_is_in_no_rate_is_shown_apart_once():
    rows = [row(state="destroyed", method=m, suspect="one") for m in ("clever()@1", "plain()@1")]
    found = table(ABOUT, rows)["apart"]
    assert found == [
        {"label": "prune", "truth": "derived", "seed": 1, "state": "destroyed", "accuracy": 0.8, "why": ""}
    ]


def test_a_rung_shows_false_alarms_rejections_and_the_bound_per_null_set():
    rows = [innocent(match=i == 0, seed=1) for i in range(60)] + [innocent(seed=2) for _ in range(60)]
    rows += [innocent("other architecture, same data", seed=1)]
    hardest, other = method(rows)["rungs"]
    assert (hardest["rung"], hardest["n"], hardest["decides"], other["decides"]) == (HARDEST_RUNG, 120, True, False)
    assert hardest["0.01"] == {**rate(1, 120), "rejected": 1, "bound": type_one_bound_over([(60, 99)] * 2, 0.01)}
    assert other["0.01"]["hits"] == 0 and other["n"] == 1


def test_kinds_left_open_are_those_seen_and_not_ruled_out():
    """Two innocents see two kinds each and rule one out; the accused one is another matter."""
    (rung,) = method([innocent(), innocent(), innocent(match=True)])["rungs"]
    assert rung["kinds_open"] == {"hits": 2, "n": 4}


def test_attacked_innocents_are_a_rung_of_their_own_and_no_copies():
    rows = [row(), innocent(), innocent(label="prune", attack="prune()", match=True)]
    found = method(rows)
    assert [rung["rung"] for rung in found["rungs"]] == [HARDEST_RUNG, "innocent models that were attacked"]
    assert found["rungs"][1]["0.01"]["hits"] == 1 and found["rungs"][0]["0.01"]["hits"] == 0
    assert [attack["n"] for attack in found["attacks"]] == [1]


def test_curves_run_along_their_parameter_and_stay_out_of_the_attacks():
    rows = [row(curve="share pruned", x=x, match=x < 0.5) for x in (0.9, 0.1, 0.1)]
    rows += [row(curve="share pruned", x=0.9, state="destroyed")]
    found = method(rows)
    assert found["attacks"] == []
    (curve,) = found["curves"]
    assert [(p["x"], p["n"], p["destroyed"], p["tpr"]["0.01"]["rate"]) for p in curve["points"]] == [
        (0.1, 2, 0, 1.0),
        (0.9, 1, 1, 0.0),
    ]


def test_query_curve_is_the_share_convicted_by_then():
    found = method([row(queries=6), row(queries=10), row(match=False, queries=100), row(queries=6, seed=2)])
    (group,) = found["queries"]
    assert group["label"] == "compression"
    assert group["points"] == [
        {"queries": 6, "share": 0.5},
        {"queries": 10, "share": 0.75},
        {"queries": 100, "share": 0.75},
    ]


def test_bands_of_accuracy_lost_take_every_copy_once():
    rows = [row(fidelity={"accuracy_lost": lost}) for lost in (-0.01, 0.0, 0.03, 0.3)] + [row(fidelity={})]
    assert [(b["from"], b["n"]) for b in method(rows)["lost"]] == [(-1.0, 2), (0.02, 1), (0.2, 1)]


def test_methods_without_a_fingerprint_say_why():
    about = About("x", (1,), (), {}, "", ({"method": "clever()@1", "failed": "no gradients"},), ())
    found = method([row(state="failed", why="no gradients")], about)
    assert found["failed"] == ["no gradients"] and found["attacks"][0]["failed"] == 1
    assert found["auc"] is None and found["probes"] is None


def test_the_digest_forgets_seconds_and_the_date_and_nothing_else():
    rows = [row(), innocent()]
    first = table(ABOUT, rows)
    slower = [r | {"seconds": 9.0} for r in rows]
    assert table(ABOUT, slower)["digest"] == first["digest"] == digest(first)
    other = deepcopy(first)
    other["methods"][0]["attacks"][0]["n"] += 1
    assert digest(other) != first["digest"]
    assert digest(json.loads(json.dumps(first))) == first["digest"]
