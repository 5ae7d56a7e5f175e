"""The portfolio of the house on digits, judged from labels alone: what it convicts, and whom it must not."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from minutia import api, catalog
from minutia.core.access import Access
from minutia.core.fingerprint import HARDEST_RUNG, Fingerprint, Null
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.core.model import Plan
from minutia.core.verdict import Verdict
from minutia.models.metered import Metered
from minutia.stats.nulls import type_one_bound
from minutia.storage.data import load_dataset
from minutia.storage.models import Entry, ModelStore
from minutia.study import zoo

pytest.importorskip("torch")
pytestmark = pytest.mark.slow
SPEC, STUDENT = (f"torch:minutia.study.architectures:{name}" for name in ("digits_cnn", "digits_mlp"))
OWN, THIEF, FOREIGN = "sklearn:digits?rows=0:900", "sklearn:digits?rows=900:1400", "sklearn:photos"
PLAN, SEED = Plan(12, 64, 4e-3), 11
KEPT = ("fine_tune_last", "fine_tune_all", "prune", "quantise/int8", "quantise/int4", "noise")
COUNTS = {"calibrator": 111, "spent": 60, "innocent": 40}


class Lab(NamedTuple):
    """An enrolled owner, the null, and a way to judge whoever is stored from labels."""

    store: ModelStore
    owner: Entry
    innocents: list[Entry]
    method: Method
    fp: Fingerprint
    null: Null

    def judged(self, entry: Entry) -> Verdict:
        suspect = Metered(zoo.open_entry(self.store, entry), only=Access.LABELS)
        return self.method.verify(self.fp, suspect, self.null, early=False)

    def stolen(self, attack: str, copies: int = 4) -> list[Verdict]:
        """Copies that a thief makes on data which the owner never saw."""
        tasks = zoo.derived_tasks(self.owner, THIEF, [catalog.attack(attack).key], copies, role="suspect", seed=SEED)
        return [self.judged(entry) for entry in zoo.build(self.store, tasks)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    store = ModelStore(tmp_path_factory.mktemp("digits"))
    (owner,) = zoo.build(store, [zoo.Task("owner", "owner", SPEC, OWN, SEED, PLAN)])
    tasks: dict[str, Any] = {
        role: zoo.unrelated_tasks(SPEC, OWN, count, role=role, rung=HARDEST_RUNG, plan=PLAN, seed=SEED)
        for role, count in COUNTS.items()
    }
    strangers = {role: zoo.build(store, some) for role, some in tasks.items()}
    copies = zoo.build(store, api.surrogate_tasks(owner, OWN, 6, SEED, student=STUDENT, foreign=FOREIGN))
    opened = {role: [zoo.open_entry(store, e) for e in some] for role, some in strangers.items()}
    data = load_dataset(OWN)
    material = Material(
        data.inputs,
        data.labels,
        unrelated=opened["spent"],
        derived=[zoo.open_entry(store, e) for e in copies if e.role == "craft"],
        surrogates=[zoo.open_entry(store, e) for e in copies if e.role == "surrogate"],
        bounds=data.bounds,
        levels=data.levels,
        held_out=(data.test_inputs, data.test_labels),
    )
    method = catalog.method("portfolio")
    fp = method.extract(zoo.open_entry(store, owner), material, seed=SEED)
    null = Null("unrelated", tuple(method.asked(m, fp.probes) for m in opened["calibrator"]))
    return Lab(store, owner, strangers["innocent"], method, fp, null)


def test_every_member_is_enrolled_and_speaks_for_itself(lab: Lab) -> None:
    assert not [part.why for part in lab.fp.members if part.why]
    verdict = lab.judged(lab.owner)
    assert verdict.outcome == "match" and len(verdict.members) >= 3
    assert verdict.null_size == 111 and verdict.p_value == pytest.approx(1 / 112)


@pytest.mark.parametrize("attack", KEPT)
def test_every_copy_that_keeps_weights_is_convicted_from_labels(lab: Lab, attack: str) -> None:
    assert [v.outcome for v in lab.stolen(attack)] == ["match"] * 4


def test_most_students_that_learnt_his_answers_are_convicted_from_labels(lab: Lab) -> None:
    verdicts = lab.stolen("distil", copies=8)
    assert sum(v.outcome == "match" for v in verdicts) >= 5, [v.p_value for v in verdicts]
    assert all(v.outcome != "no-match" for v in verdicts)


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_false_alarms_among_fresh_innocents_stay_within_the_bound(lab: Lab, alpha: float) -> None:
    ps = np.array([lab.judged(entry).p_value for entry in lab.innocents])
    assert len(ps) == 40 and np.sum(ps <= alpha) <= type_one_bound(40, 111, alpha)
