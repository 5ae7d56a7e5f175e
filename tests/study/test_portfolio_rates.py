"""The portfolio of the house on digits, judged from labels alone: what it convicts, and whom it must not."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from minutia import catalog
from minutia.core.access import Access
from minutia.core.answers import Answers, Observation
from minutia.core.fingerprint import HARDEST_RUNG, Fingerprint, Null
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.core.model import Plan
from minutia.core.verdict import Verdict
from minutia.models.metered import Metered
from minutia.stats.nulls import type_one_bound
from minutia.storage.data import load_dataset
from minutia.storage.models import Entry, ModelStore
from minutia.study import population, zoo

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
    strangers: dict[str, list[Entry]]
    learnt: list[Entry]
    method: Method
    fp: Fingerprint
    null: Null

    def judged(self, entry: Entry) -> Verdict:
        return self.method.judge(self.fp, self.seen(entry), self.null, alpha=0.01)

    def seen(self, entry: Entry) -> Observation:
        """What somebody stored answers, labels alone."""
        suspect = Metered(zoo.open_entry(self.store, entry), only=Access.LABELS)
        return self.method.asked(suspect, self.fp.probes)

    def copies(self, attack: str, count: int = 4, disclosed: str = "") -> list[Entry]:
        """Copies that a thief makes on data which the owner never saw."""
        key = catalog.attack(attack).key
        return zoo.build(
            self.store,
            zoo.derived_tasks(self.owner, THIEF, [key], count, role="suspect", seed=SEED, disclosed=disclosed),
        )

    def stolen(self, attack: str, count: int = 4) -> list[Verdict]:
        """What is said of such copies."""
        return [self.judged(entry) for entry in self.copies(attack, count)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    store = ModelStore(tmp_path_factory.mktemp("digits"))
    (owner,) = zoo.build(store, [zoo.Task("owner", "owner", SPEC, OWN, SEED, PLAN)])
    tasks: dict[str, Any] = {
        role: zoo.unrelated_tasks(SPEC, OWN, count, role=role, rung=HARDEST_RUNG, plan=PLAN, seed=SEED)
        for role, count in COUNTS.items()
    }
    tasks["spent"] += population.half_tasks(population.Recipe(SPEC, OWN, PLAN), 12, SEED)
    strangers = {role: zoo.build(store, some) for role, some in tasks.items()}
    learnt = zoo.build(store, population.surrogate_tasks(owner, OWN, 4, SEED, student=STUDENT, foreign=FOREIGN))
    return enrolled(store, owner, strangers, learnt, SEED)


def enrolled(store: ModelStore, owner: Entry, strangers: dict[str, list[Entry]], learnt: list[Entry], seed: int) -> Lab:
    """The owner's fingerprint and its null."""
    opened = {role: [zoo.open_entry(store, e) for e in some] for role, some in strangers.items()}
    data = load_dataset(OWN)
    material = Material(
        data.inputs,
        data.labels,
        unrelated=opened["spent"],
        derived=[zoo.open_entry(store, e) for e in learnt if e.role == "craft"],
        surrogates=[zoo.open_entry(store, e) for e in learnt if e.role == "surrogate"],
        bounds=data.bounds,
        levels=data.levels,
        held_out=(data.test_inputs, data.test_labels),
    )
    method = catalog.method("portfolio")
    fp = method.extract(zoo.open_entry(store, owner), material, seed=seed)
    null = Null("unrelated", tuple(method.asked(m, fp.probes) for m in opened["calibrator"]))
    return Lab(store, owner, strangers, learnt, method, fp, null)


def test_every_member_is_enrolled_and_speaks_for_itself(lab: Lab) -> None:
    assert not [part.why for part in lab.fp.members if part.why]
    verdict = lab.judged(lab.owner)
    assert verdict.outcome == "match" and len(verdict.members) >= 3
    assert verdict.null_size == 111 and verdict.p_value == pytest.approx(1 / 112)


@pytest.mark.parametrize("attack", KEPT)
def test_every_copy_that_keeps_weights_is_convicted_from_labels(lab: Lab, attack: str) -> None:
    assert [v.outcome for v in lab.stolen(attack)] == ["match"] * 4


def test_most_students_that_learnt_his_answers_are_convicted_from_labels(lab: Lab) -> None:
    verdicts = lab.stolen("distil", count=8)
    assert sum(v.outcome == "match" for v in verdicts) >= 5, [v.p_value for v in verdicts]
    assert all(v.outcome != "no-match" for v in verdicts)


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_false_alarms_among_fresh_innocents_stay_within_the_bound(lab: Lab, alpha: float) -> None:
    ps = np.array([lab.judged(entry).p_value for entry in lab.strangers["innocent"]])
    assert len(ps) == 40 and np.sum(ps <= alpha) <= type_one_bound(40, 111, alpha)


@pytest.mark.parametrize("member", ["metaclassifier", "conferrable", "ipguard"])
def test_one_member_that_is_evaded_does_not_sink_the_verdict(lab: Lab, member: str) -> None:
    """On the probes of one member copies answer as an innocent model does; the other members still convict them."""
    (place,) = [i for i, part in enumerate(lab.fp.members) if part.method.startswith(member)]
    rows = list(lab.fp.members[place].rows)
    innocent = lab.seen(lab.strangers["innocent"][0]).answers.labels
    alone = lab.judged(lab.strangers["innocent"][0]).members[place].p_value
    outcomes = []
    for attack in KEPT[:4]:
        for entry in lab.copies(attack, 2):
            seen = lab.seen(entry)
            labels = seen.answers.labels.copy()
            labels[rows] = innocent[rows]
            evading = replace(seen, answers=Answers.from_labels(labels))
            verdict = lab.method.judge(lab.fp, evading, lab.null, alpha=0.01)
            assert verdict.members[place].p_value == alone
            outcomes.append(verdict.outcome)
    assert len(outcomes) == 8 and outcomes.count("match") >= 6, outcomes


def test_who_unlearnt_the_first_fingerprint_is_convicted_by_the_reserve(lab: Lab) -> None:
    """The reserve is made with copies that unlearnt the first; the thief knows every probe of it."""
    known = population.kept_in(lab.store, lab.fp)
    more = zoo.build(lab.store, population.knowing_tasks(lab.owner, OWN, 4, SEED, known))
    reserve = enrolled(lab.store, lab.owner, lab.strangers, [*lab.learnt, *more], SEED + 1)
    thieves = lab.copies("unlearn", disclosed=known)
    first, second = ([one.judged(entry) for entry in thieves] for one in (lab, reserve))
    assert sum(v.outcome == "match" for v in first) <= 1, [v.p_value for v in first]
    assert [v.outcome for v in second] == ["match"] * 4, [v.p_value for v in second]
    alarms = [reserve.judged(entry).p_value <= 0.01 for entry in lab.strangers["innocent"]]
    assert sum(alarms) <= type_one_bound(40, 111, 0.01)
