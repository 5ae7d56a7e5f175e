"""The portfolio: members take turns, are cut out of one fingerprint, and stand in for one another."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handmade import Share, fingerprint, matching, null
from minutia import catalog
from minutia.checks import learning_bench, toy_bench
from minutia.core.access import Access
from minutia.core.answers import Answers
from minutia.core.digest import array_digest
from minutia.core.errors import NullError, UnknownNameError, UsageError
from minutia.core.fingerprint import Fingerprint, Null, Part
from minutia.core.material import Material
from minutia.core.method import Enrolment, Method
from minutia.core.portfolio import BLOCK, Portfolio, turns
from minutia.core.probe import numbered
from minutia.models.metered import Metered
from minutia.models.toy import ToyClassifier
from minutia.storage.files import load_fingerprint, save_fingerprint

META = "metaclassifier(probes=24,pool=400,crafted=60,steps=40)"
IPG = "ipguard(probes=20,oversample=8)"
CONF = "conferrable(probes=20,steps=30)"
THREE = f"{META}+{IPG}+{CONF}"
ALPHA = 0.1

# --- turns


def worths(low=0.0):
    return st.lists(st.lists(st.floats(low, 1), max_size=40).map(np.array), min_size=1, max_size=4)


@given(worths())
def test_turns_ask_every_probe_once_and_keep_every_members_order(values):
    order = turns(values)
    assert sorted(order) == [(m, row) for m, v in enumerate(values) for row in range(len(v))]
    for member in range(len(values)):
        rows = [row for m, row in order if m == member]
        assert rows == sorted(rows)


@given(worths())
def test_turns_come_in_blocks(values):
    """Whoever is asked is asked six times in a row, unless nothing of it is left."""
    order, at = turns(values), 0
    while at < len(order):
        member, row = order[at]
        block = min(BLOCK, len(values[member]) - row)
        assert order[at : at + block] == [(member, row + i) for i in range(block)]
        at += block


def test_the_most_telling_member_comes_first_and_nobody_waits_for_the_end():
    order = [m for m, _ in turns([np.full(60, 0.4), np.full(60, 0.9)])]
    assert order[0] == 1 and set(order[:24]) == {0, 1}


def test_a_member_without_worth_comes_last():
    order = [m for m, _ in turns([np.zeros(12), np.full(12, 0.5)])]
    assert order == [1] * 12 + [0] * 12


def test_nothing_to_ask():
    assert turns([np.empty(0), np.empty(0)]) == []


# --- material in two parts


def models(roots, count=0):
    made = []
    for i, root in enumerate(roots):
        model = ToyClassifier.fresh((4, 3), seed=count + i)
        model.card = replace(model.card, root=root)
        made.append(model)
    return made


@given(st.lists(st.integers(0, 11), min_size=4, max_size=16), st.integers(0, 9), st.integers(0, 9))
def test_the_parts_share_no_model_and_no_root(roots, copies, learnt):
    own, derived, surrogates = models([f"r{r}" for r in roots]), models(["o"] * copies, 50), models(["o"] * learnt, 80)
    material = Material(np.zeros((1, 4)), np.zeros(1), unrelated=own, derived=derived, surrogates=surrogates)
    if len(set(roots)) < 4:
        with pytest.raises(UsageError, match="4 or more unrelated models to fit on some and screen with others"):
            material.parted()
        return
    fit, screen = material.parted()
    kinds = [{m.card.root for m in part.unrelated} for part in (fit, screen)]
    assert not kinds[0] & kinds[1] and kinds[0] | kinds[1] == {f"r{r}" for r in roots}
    assert len(kinds[1]) == len(set(roots)) // 4
    for role in ("unrelated", "derived", "surrogates"):
        whole = getattr(material, role)
        first, second = ([m.card.id for m in getattr(part, role)] for part in (fit, screen))
        assert sorted([*first, *second]) == sorted(m.card.id for m in whole) and not set(first) & set(second)


def test_material_that_was_parted_stays_as_it_was_parted():
    """A portfolio parts once; its members part what is parted already, and get the same two parts."""
    fit, screen = learning_bench().material.parted()
    given_ = replace(fit, screening=screen)
    again, kept = given_.parted()
    assert again is given_ and kept is screen


# --- configuring


def test_a_key_with_a_plus_is_a_portfolio_and_comes_back():
    chosen = catalog.method(f"{IPG}+noise_agreement")
    assert isinstance(chosen, Portfolio) and [m.name for m in chosen.methods] == ["ipguard", "noise_agreement"]
    assert catalog.method(chosen.key) == chosen and chosen.key.count("+") == 1


def test_the_portfolio_of_the_house():
    chosen = catalog.method("portfolio")
    assert [m.name for m in chosen.methods] == [catalog.method(key).name for key in catalog.PORTFOLIO]
    assert chosen.learns and catalog.method(chosen.key) == chosen


def test_a_portfolio_says_what_its_members_say():
    chosen = catalog.method("ipguard+noise_agreement")
    assert not chosen.learns and chosen.reads == Access(0)
    assert chosen.serves == catalog.method("ipguard").serves | catalog.method("noise_agreement").serves
    assert chosen.owner_needs == chosen.suspect_needs == Access.LABELS


@pytest.mark.parametrize(
    "methods",
    [
        (),
        (Share(11),),
        (Share(11), Share(11)),
        (Share(11), Portfolio((Share(12), Share(13)))),
        (Share(11), catalog.method("sensitive_samples")),
    ],
)
def test_what_is_no_portfolio_is_refused(methods):
    with pytest.raises(UsageError, match="expected two or more different methods for the question 'origin'"):
        Portfolio(methods)


def test_an_unknown_member_is_named():
    with pytest.raises(UnknownNameError, match="got 'ipgard': did you mean ipguard"):
        catalog.method("ipgard+noise_agreement")


def test_a_portfolio_is_judged_and_never_scored():
    fp = fingerprint(12)
    with pytest.raises(UsageError, match="expected one method to score with, got a portfolio"):
        Portfolio((Share(11), Share(12))).score(fp, matching(fp, "s", 3))


# --- parts of a fingerprint


def test_a_member_is_a_fingerprint_of_its_own():
    fp = replace(
        fingerprint(12, looks=(6, 12), controls={"prune": [9]}),
        members=(Part("a", (0, 2, 4, 6, 8, 10)), Part("b", (1, 3)), Part("c", (), "it cannot")),
        arrays={"0.w": np.arange(3), "1.w": np.zeros(1), "10.w": np.ones(1), "anchors.inputs": np.zeros((1, 4))},
    )
    one, two = fp.member(0), fp.member(1)
    assert (one.method, two.method) == ("a", "b") and one.members == ()
    assert one.probes.ids == tuple(f"p{i:03d}" for i in range(0, 12, 2)) and two.probes.ids == ("p001", "p003")
    assert {n: a.tolist() for n, a in one.arrays.items()} == {"w": [0, 1, 2]}, "arrays by place, not by prefix"
    assert two.schedule == (2,) and two.answers.labels.tolist() == fp.answers.labels[[1, 3]].tolist()
    whole = fp.controls["prune"][0]
    assert one.controls["prune"][0].answers.labels.tolist() == whole.only(one.probes.ids).answers.labels.tolist()
    assert [len(o.asked) for o in two.reference] == [2, 2] and two.reference[0].protocol == two.probes.digest


def test_members_are_part_of_the_digest():
    fp = fingerprint(12)
    first, second = (replace(fp, members=(Part("a", rows), Part("b", (0,)))) for rows in ((1, 2), (2, 1)))
    assert len({fp.digest, first.digest, second.digest}) == 3


# --- enrolling


@cache
def enrolled(key: str = THREE) -> tuple[Method, Fingerprint, Null]:
    """A portfolio of toy models, and a null of eleven."""
    bench, chosen = learning_bench(), catalog.method(key)
    fp = chosen.extract(bench.owner, bench.material, seed=1)
    return chosen, fp, Null("unrelated", tuple(chosen.observe(fp, m) for m in bench.innocents[1:]), source="toys")


def test_every_probe_belongs_to_one_member():
    chosen, fp, _ = enrolled()
    rows = [row for part in fp.members for row in part.rows]
    assert sorted(rows) == list(range(len(fp.probes))) and not any(part.why for part in fp.members)
    assert [part.method for part in fp.members] == [m.key for m in chosen.methods]
    assert [len(part.rows) for part in fp.members] == [24, 20, 20]


def test_only_models_that_nothing_was_crafted_on_set_the_scale():
    """Ten of forty spent models screen; all forty can never calibrate."""
    _, fp, _ = enrolled()
    fit, screen = learning_bench().material.parted()
    assert {o.subject.root for o in fp.reference} == {m.card.root for m in screen.unrelated}
    assert fp.spent == {m.card.root for part in (fit, screen) for m in part.unrelated}


@pytest.mark.parametrize("part", [0, 1], ids=["fit", "screen"])
def test_a_model_that_was_fitted_or_screened_on_cannot_calibrate(part):
    chosen, fp, of = enrolled()
    leak = learning_bench().material.parted()[part].unrelated[0]
    spoiled = replace(of, observations=(*of.observations, chosen.observe(fp, leak)))
    with pytest.raises(NullError, match="expected calibrators that took no part in crafting"):
        chosen.verify(fp, learning_bench().innocents[0], spoiled, alpha=ALPHA)


def test_the_same_seed_gives_the_same_portfolio():
    chosen, fp, _ = enrolled()
    bench = learning_bench()
    assert chosen.extract(bench.owner, bench.material, seed=1).digest == fp.digest


def test_members_that_need_copies_are_left_out_where_there_are_none():
    bench, chosen = learning_bench(), catalog.method(THREE)
    fp = chosen.extract(bench.owner, replace(bench.material, derived=(), surrogates=()), seed=1)
    assert [bool(m.why) for m in fp.members] == [True, False, True]
    assert "12 or more copies to learn from, got 0" in fp.members[0].why
    assert "8 or more copies with gradients to craft on, got 0" in fp.members[2].why
    assert len(fp.members[1].rows) == 20 == len(fp.probes)
    assert [method.name for method, _ in chosen.columns(fp)] == ["ipguard"]


@dataclass(frozen=True)
class Refusing(Share):
    """Gives up after it has drawn."""

    name = "refusing"

    def enrol(self, model, material, rng):
        rng.random(self.probes)
        raise UsageError("expected something else, got this: never mind")


def test_a_member_that_is_left_out_changes_nothing_about_the_others():
    """Each member draws from a generator of its own."""
    bench, ipguard = learning_bench(), catalog.method(IPG)
    one, two = (
        Portfolio((other, ipguard)).extract(bench.owner, bench.material, seed=1) for other in (Refusing(3), Noise())
    )
    assert one.members[0].why == "expected something else, got this: never mind" and not two.members[0].why
    np.testing.assert_array_equal(one.member(1).probes.array, two.member(1).probes.array)


def test_with_too_few_unrelated_models_those_that_learn_are_left_out():
    bench = learning_bench()
    few = replace(bench.material, unrelated=bench.material.unrelated[:3])
    found = {
        part.method.partition("(")[0]: part.why for part in catalog.method(THREE).extract(bench.owner, few).members
    }
    assert found["ipguard"] == "" and "expected 4 or more unrelated models" in found["metaclassifier"]


class Box:
    """A model behind an API that names a class and nothing else."""

    access = Access.LABELS

    def __init__(self, model):
        self._model, self.card, self.spec = model, model.card, "box"

    def ask(self, probes):
        return self._model.ask(probes).showing(0)


def test_an_owner_behind_an_api_is_told_which_members_he_lacks():
    bench = learning_bench()
    fp = catalog.method(THREE).extract(Box(bench.owner), bench.material, seed=1)
    assert [part.why for part in fp.members] == ["", *["the owner's model does not give gradients"] * 2]
    assert len(fp.probes) == 24


def test_an_owner_whom_no_member_can_enrol_is_one_sentence():
    bench = learning_bench()
    with pytest.raises(UsageError, match="some method of the portfolio can enrol, got box: the owner's model does not"):
        catalog.method(f"{IPG}+{CONF}").extract(Box(bench.owner), bench.material)


def test_data_that_a_member_does_not_serve_leave_it_out():
    bench = learning_bench()
    text = replace(bench.material, content="text", bounds=(0.0, 5.0))
    fp = catalog.method(f"{IPG}+natural_errors(probes=8)").extract(bench.owner, text)
    assert fp.members[0].why == "it does not serve text data" and not fp.members[1].why


def test_a_portfolio_comes_back_from_its_file(tmp_path):
    chosen, fp, of = enrolled()
    save_fingerprint(fp, tmp_path / "fp")
    back = load_fingerprint(tmp_path / "fp")
    assert (back.digest, back.members, back.method) == (fp.digest, fp.members, chosen.key)
    suspect = learning_bench().material.controls["noise"][0]
    one, two = (catalog.method(f.method).verify(f, suspect, of, alpha=ALPHA) for f in (fp, back))
    assert one == two


def test_reasons_of_left_out_members_come_back_as_well(tmp_path):
    bench = learning_bench()
    fp = catalog.method(THREE).extract(Box(bench.owner), bench.material, seed=1)
    save_fingerprint(fp, tmp_path / "fp")
    assert load_fingerprint(tmp_path / "fp").members == fp.members


# --- broken members


class Evading:
    """A suspect that recognises some probes and answers them in its own way."""

    def __init__(self, model, known, answer):
        self._model, self._known, self._answer = model, {array_digest(x) for x in known}, answer
        self.card, self.spec, self.access = model.card, "evading", Access.LABELS

    def ask(self, probes):
        labels = self._model.ask(probes).labels.copy()
        for row, x in enumerate(probes.array):
            if array_digest(x) in self._known:
                labels[row] = self._answer(labels[row], row)
        return Answers.from_labels(labels)


EVASIONS = {
    "constant": lambda label, row: 0,
    "another class": lambda label, row: (label + 1) % 5,
    "at random": lambda label, row: int(np.random.default_rng([row, label]).integers(5)),
}


@pytest.mark.parametrize("evasion", EVASIONS)
@pytest.mark.parametrize("broken", range(3))
def test_a_member_that_is_evaded_costs_queries_and_no_conviction(broken, evasion):
    chosen, fp, of = enrolled()
    known = fp.probes.array[list(fp.members[broken].rows)]
    for copy in learning_bench().material.controls["noise"]:
        verdict = chosen.verify(fp, Evading(copy, known, EVASIONS[evasion]), of, alpha=ALPHA)
        assert (verdict.outcome, verdict.p_value) == ("match", pytest.approx(1 / 12))


def test_a_suspect_that_evades_every_member_is_not_convicted():
    """What the tests above rest on: it is the other members that convict."""
    chosen, fp, of = enrolled()
    suspect = Evading(learning_bench().material.controls["noise"][0], fp.probes.array, EVASIONS["another class"])
    verdict = chosen.verify(fp, suspect, of, alpha=ALPHA)
    assert verdict.outcome == "inconclusive" and len(verdict.members) == 3


@dataclass(frozen=True)
class Noise(Method):
    """A score that has nothing to do with anything."""

    name, h0, source = "noise", "anything", "by hand"
    owner_needs = suspect_needs = Access.LABELS

    spread: float = 1.0

    def enrol(self, model, material, rng):
        return Enrolment(numbered(material.stored(rng.random((20, 1, 4, 4))), {"channel": "array"}), {})

    def score(self, fp, observation):
        seed = int(observation.digest[7:15], 16)
        return float(np.random.default_rng(seed).standard_t(2) * self.spread)


@pytest.mark.parametrize("broken", range(3))
def test_a_member_whose_score_is_noise_costs_no_conviction(broken):
    """Even one with a long tail: its unit is how far innocent models stray."""
    parts: list[Method] = list(catalog.method(THREE).methods)
    parts[broken] = Noise()
    bench, chosen = learning_bench(), Portfolio(tuple(parts))
    fp = chosen.extract(bench.owner, bench.material, seed=1)
    of = Null("unrelated", tuple(chosen.observe(fp, m) for m in bench.innocents))
    copies = [*bench.material.controls["noise"], bench.owner]
    assert [chosen.verify(fp, m, of, alpha=ALPHA).outcome for m in copies] == ["match"] * 4


SEEN: dict[str, set[str]] = {}


@dataclass(frozen=True)
class Looking(Noise):
    """Notes which models it is given."""

    name = "looking"

    def enrol(self, model, material, rng):
        SEEN.update({r: {m.card.id for m in getattr(material, r)} for r in ("unrelated", "derived", "surrogates")})
        return super().enrol(model, material, rng)


def test_members_never_see_the_models_that_screen():
    """What no member could fit on is what sets the scale and the turns."""
    bench = learning_bench()
    fit, screen = bench.material.parted()
    Portfolio((Looking(), Noise())).extract(bench.owner, bench.material, seed=1)
    for role, seen in SEEN.items():
        assert seen == {m.card.id for m in getattr(fit, role)}
        assert not seen & {m.card.id for m in getattr(screen, role)}


def test_innocent_models_are_not_convicted_by_any_order_of_who_is_the_suspect():
    chosen, fp, _ = enrolled()
    seen = [chosen.observe(fp, m) for m in learning_bench().innocents]
    ps = []
    for i, suspect in enumerate(seen):
        of = Null("unrelated", tuple(seen[:i] + seen[i + 1 :]))
        ps.append(chosen.judge(fp, suspect, of, alpha=ALPHA).p_value)
    for k in range(1, len(ps) + 1):
        assert sum(p <= k / len(ps) + 1e-12 for p in ps) <= k


def test_labels_alone_convict_copies_too():
    chosen, fp, of = enrolled()
    bench = learning_bench()
    outcomes = [chosen.verify(fp, Box(m), of, alpha=ALPHA).outcome for m in bench.material.controls["noise"]]
    assert outcomes == ["match"] * 3
    assert chosen.verify(fp, Box(bench.innocents[0]), of, alpha=ALPHA).outcome == "inconclusive"


@pytest.mark.parametrize("shows", [0, 1, 3, 5])
def test_the_null_sees_as_much_as_the_suspect_shows_in_every_member(shows):
    """Cutting the null by hand to what the suspect shows gives the same verdict, member by member."""
    chosen, fp, of = enrolled()
    suspect = chosen.observe(fp, learning_bench().material.surrogates[0]).showing(shows)
    cut = replace(of, observations=tuple(o.showing(shows) for o in of.observations))
    one, two = (chosen.judge(fp, suspect, n, alpha=ALPHA) for n in (of, cut))
    assert (one.p_value, one.members, one.path) == (two.p_value, two.members, two.path)


def test_stopping_early_and_asking_all_agree():
    chosen, fp, of = enrolled()
    bench = learning_bench()
    for suspect in (*bench.material.controls["noise"], bench.material.surrogates[0], bench.innocents[0]):
        early, late = (chosen.verify(fp, suspect, of, alpha=ALPHA, early=flag) for flag in (True, False))
        assert (early.outcome == "match") == (late.outcome == "match") and late.p_value <= early.p_value


def test_a_method_that_asks_nothing_can_be_judged():
    @dataclass(frozen=True)
    class Bias(Method):
        name, h0, source = "bias", "made without my model", "by hand"
        owner_needs = suspect_needs = reads = Access.WEIGHTS

        layer: int = 0

        def enrol(self, model, material, rng):
            none = np.empty((0, *material.inputs.shape[1:]), np.float32)
            return Enrolment(numbered(none, {"channel": "array"}), {"own": self.read(model, {})["bias.0"]})

        def read(self, model, arrays):
            return {"bias.0": dict(model.tensors())["b0"]}

        def score(self, fp, observation):
            return -float(np.abs(observation.arrays["bias.0"] - fp.arrays["own"]).mean())

    bench, method = toy_bench(), Bias()
    fp = method.extract(bench.owner, bench.material)
    of = Null("unrelated", tuple(method.observe(fp, m) for m in bench.innocents))
    assert fp.schedule == (0,)
    copy = bench.material.controls["noise"][0]
    assert [method.verify(fp, m, of, alpha=ALPHA).outcome for m in (copy, Metered(copy))] == ["match"] * 2
    assert method.verify(fp, bench.innocents[0], of, alpha=ALPHA).outcome == "inconclusive"
    with pytest.raises(UsageError, match="gives weights for bias"):
        method.verify(fp, Metered(copy, only=Access.LABELS), of, alpha=ALPHA)


def test_a_null_of_the_portfolio_is_one_for_all_members():
    fp = replace(
        fingerprint(12), members=(Part(Share(11).key, tuple(range(6))), Part(Share(12).key, tuple(range(6, 12))))
    )
    chosen = Portfolio((Share(11), Share(12)))
    verdict = chosen.judge(replace(fp, method=chosen.key), matching(fp, "s", 12), null(fp, [1, 2, 3] * 3), alpha=ALPHA)
    assert (verdict.null_size, verdict.p_floor, verdict.p_value) == (9, 0.1, 0.1)
