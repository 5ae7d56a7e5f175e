"""Bench on small models: every stage, the same table again, and what cannot be served or made."""

import json
import shutil

import numpy as np
import pytest

from minutia import catalog
from minutia.core.access import Access
from minutia.core.errors import FileError, ModelError, UsageError
from minutia.core.fingerprint import HARDEST_RUNG
from minutia.core.model import ModelCard
from minutia.models.metered import Metered
from minutia.report import bench_findings as findings
from minutia.storage.files import load_fingerprint, load_null
from minutia.storage.models import Entry, ModelStore
from minutia.study import bench, zoo
from minutia.study.engines import Local
from minutia.study.file import study

METHOD = "ipguard(probes=30,oversample=6)"


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """600 images of five overlapping classes, and 200 of another domain."""
    rng = np.random.default_rng(1910)
    folder = tmp_path_factory.mktemp("data")
    for name, count in (("points", 700), ("others", 200)):
        labels = rng.integers(0, 5, count)
        images = rng.random((5, 1, 4, 4))[labels] + rng.normal(0, 0.4, (count, 1, 4, 4))
        np.savez(folder / f"{name}.npz", x_train=np.clip(images, 0, 1).astype(np.float32), y_train=labels)
    return folder


def small(points, **more):
    """A study of one or two seeds that takes seconds."""
    own = f"{points}/points.npz"
    return study(
        {
            "name": "small",
            "seeds": [3],
            "methods": [METHOD],
            "attacks": ["noise", "prune+fine_tune_all", "unlearn", "labels_only", "noise(strength=50)"],
            "claims": [],
            "ancestor_epochs": 2,
            "data": {
                "owner": f"{own}?rows=0:300",
                "thief": f"{own}?rows=300:500",
                "other": f"{points}/others.npz",
                "foreign": f"{points}/others.npz",
            },
            "model": {"architecture": "toy:mlp?sizes=16-12-5", "other": "toy:mlp?sizes=16-8-5", "epochs": 8},
            "counts": {
                "calibrators": 99,
                "spent": 6,
                "controls": 2,
                "copies": 2,
                "innocents": 8,
                "per_rung": 3,
                "attacked_innocents": 1,
            },
            **more,
        }
    )


@pytest.fixture(scope="module")
def ran(points, tmp_path_factory):
    root = tmp_path_factory.mktemp("bench")
    told = []

    def progress(title):
        return lambda done, total, what: told.append((title, done, total))

    result = bench.run(small(points), root, Local(1), told=progress)
    return result, root, told


def test_every_suspect_is_judged_by_every_method_once(ran):
    rows = ran[0].rows
    plain = [r for r in rows if r["label"] != "unlearn"]
    per_method = {m: sum(r["method"] == m for r in plain) for m in {r["method"] for r in rows}}
    assert len(per_method) == 3 and len(set(per_method.values())) == 1
    assert (
        next(iter(per_method.values())) == 4 * 3 + 8 + 4 * 3 + 3
    )  # attacks with innocents, rungs, ancestor's children
    assert {(r["truth"], r["kind"]) for r in rows if r["truth"] == "unrelated" and not r["attack"]} == {
        ("unrelated", "same architecture, other data"),
        ("unrelated", "other architecture, same data"),
        ("unrelated", "same architecture, disjoint data"),
        ("unrelated", "other recipe, same data"),
        ("unrelated", HARDEST_RUNG),
        ("unrelated", "same public ancestor, other fine-tune"),
    }


def test_thieves_who_know_the_probes_are_judged_by_that_method_alone(ran):
    rows = [r for r in ran[0].rows if r["label"] == "unlearn"]
    assert len(rows) == 3 * 3
    assert len({r["suspect"] for r in rows}) == 9


def test_the_table_has_the_expected_shape_and_destroyed_models_are_apart(ran):
    found = ran[0].table
    first = found["methods"][0]
    attacks = {a["attack"]: a for a in first["attacks"]}
    assert attacks["noise"]["n"] == 2
    assert attacks["labels_only"]["n"] == 1, "both copies are the owner's model with the same answers"
    assert attacks["noise(strength=50)"]["destroyed"] == 2 and attacks["noise(strength=50)"]["n"] == 0
    assert "noise(strength=50)" in {entry["label"] for entry in found["apart"] if entry["state"] == "destroyed"}
    assert not {"noise", "labels_only"} & {entry["label"] for entry in found["apart"]}
    assert [m["baseline"] for m in found["methods"]] == [False, True, True]
    assert json.loads(json.dumps(found)) == found


def test_who_knows_the_probes_meets_the_reserve_as_well(ran, points, tmp_path):
    """The reserve is another fingerprint of the same method, made with copies that unlearnt the first one."""
    result = bench.run(small(points, reserve=METHOD), tmp_path, Local(1))
    key = catalog.method(METHOD).key
    rows = {name: [r for r in result.rows if r["method"] == name] for name in (key, f"{key} in reserve")}
    first, second = ({r["suspect"] + r["attack"] for r in some} for some in rows.values())
    assert {r["method"] for r in result.rows if r["label"] == "unlearn"} == {
        *{r["method"] for r in ran[0].rows},
        f"{key} in reserve",
    }
    assert second < first, "children of an ancestor have no reserve"
    known = {r["suspect"] for r in rows[key] if r["label"] == "unlearn"}
    assert {r["suspect"] for r in rows[f"{key} in reserve"] if r["label"] == "unlearn"} == known
    shown = [(m["name"], m["reserve"]) for m in result.table["methods"]]
    assert shown[:2] == [("ipguard", False), ("ipguard in reserve", True)], "a reserve follows its method"
    assert findings.best(result.table)["name"] == "ipguard"


def test_a_reserve_for_no_method_of_the_study_is_refused(points):
    with pytest.raises(UsageError, match="expected one of the study's methods as reserve, got stretched"):
        small(points, reserve="stretched")
    with pytest.raises(UsageError, match="expected one of the study's methods as forged, got conferrable"):
        small(points, forged=["conferrable"])


def test_running_again_does_nothing_and_gives_the_same_table(ran, points):
    result, root, _ = ran
    told = []
    again = bench.run(small(points), root, Local(1), told=lambda t: lambda *a: told.append(a[:2]))
    assert again.table["digest"] == result.table["digest"] and again.rows == result.rows
    assert all(done == total for done, total in told)


def test_another_place_gives_the_same_table(ran, points, tmp_path):
    assert bench.run(small(points), tmp_path, Local(1)).table["digest"] == ran[0].table["digest"]


def test_rows_are_the_verdicts_of_verify(ran, points):
    """The early verdict from one whole observation is the one that asking look by look gives."""
    rows, root = ran[0].rows, ran[1]
    store = ModelStore(root)
    plan = small(points)
    prints = [load_fingerprint(p) for p in sorted((root / "fingerprints").iterdir())]
    nulls = [load_null(p) for p in sorted((root / "nulls").iterdir())]
    kept = {
        Entry.from_plain(v["value"]["entry"]).card.id: Entry.from_plain(v["value"]["entry"])
        for (blob,) in store.journal._database.execute("SELECT value FROM entry")
        if "entry" in (v := json.loads(blob))["value"]
    }
    checked = 0
    for row in rows:
        if row["method"] != catalog.method(METHOD).key or "serving" in row or row["label"] == "labels_only":
            continue
        fp = next(f for f in prints for n in nulls if f.method == row["method"] and _judges(f, n, row))
        null = next(n for n in nulls if n.observations[0].protocol == fp.probes.digest)
        suspect = zoo.open_entry(store, kept[row["model"]])
        for level in ("0.01", "0.05"):
            verdict = catalog.method(METHOD).verify(fp, Metered(suspect, only=Access.LABELS), null, alpha=float(level))
            assert verdict.outcome == row["outcome"][level]
            assert verdict.asked == row["queries"][level] and verdict.p_value == row["p"][level]
        checked += 1
    assert checked > 20 and plan.access == "labels"


def _judges(fp, null, row):
    """Whether this pair judged the row: the ancestor's house has a null of its own."""
    family = "same public ancestor, other fine-tune"
    return null.observations[0].protocol == fp.probes.digest and (null.rung == family) == (row["kind"] == family)


def test_a_folder_from_elsewhere_is_refused_because_its_journal_may_name_code(ran, points, tmp_path, monkeypatch):
    shutil.copytree(ran[1], tmp_path / "gift")
    monkeypatch.setenv("MINUTIA_DATA_DIR", str(tmp_path / "another user"))
    with pytest.raises(FileError, match="expected a folder that was made here"):
        bench.run(small(points), tmp_path / "gift", Local(1))


def test_null_models_that_diverged_are_left_out_and_too_many_are_an_error():
    cards = [ModelCard(str(i), str(i), fidelity={"diverged": 1.0} if i < 3 else {}) for i in range(10)]
    entries = [Entry("calibrator", HARDEST_RUNG, "toy:mlp", card, None) for card in cards]
    assert bench._sound(entries) == entries[3:] and bench._sound([]) == []
    with pytest.raises(ModelError, match=r"got 3 of 5 calibrator models that diverged"):
        bench._sound(entries[:5])


def test_an_attack_that_cannot_be_made_is_a_row_with_a_reason(points, tmp_path):
    plan = small(points, attacks=["noise", "fold_norms"], ancestor_epochs=0)
    found = bench.run(plan, tmp_path, Local(1)).table["methods"][0]
    (failed,) = [a for a in found["attacks"] if a["attack"] == "fold_norms"]
    assert failed["failed"] == 2 and failed["n"] == 0 and "norm" in failed["why"][0]


def test_a_curve_may_run_along_a_figure_of_the_card(points, tmp_path):
    curve = {"title": "steps", "attack": "fine_tune_all(epochs={x})", "x": [1, 3], "along": "steps", "copies": 1}
    plan = small(points, attacks=["noise"], curves=[curve], ancestor_epochs=0)
    (found,) = bench.run(plan, tmp_path, Local(1)).table["methods"][0]["curves"]
    assert [p["x"] for p in found["points"]] == [4, 12]  # 200 inputs of the thief in batches of 64


def test_false_claims_are_tried_by_the_judges_own_null(points, tmp_path):
    plan = small(
        points,
        methods=[METHOD, "ipguard(probes=20,oversample=6)"],
        forged=[METHOD],
        attacks=["noise"],
        claims=["transferable(probes=8,oversample=60)", "post_hoc(probes=30)"],
        ancestor_epochs=0,
    )
    general, tailored = bench.run(plan, tmp_path, Local(1)).table["claims"]
    assert "failed" not in general and "failed" not in tailored, (general, tailored)
    assert (general["known_suspect"], tailored["known_suspect"]) == (False, True)
    assert general["n"] == 8 and general["0.01"]["hits"] <= general["0.01"]["bound"]
    assert tailored["n"] == 8
