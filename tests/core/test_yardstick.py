"""The yardstick: columns of several methods, exact ones among them, their units, and one joint p-value."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handmade import CLASSES, Share, fingerprint, labels_with, matching, null, seen
from minutia.core.access import Access
from minutia.core.answers import Status
from minutia.core.errors import UsageError
from minutia.core.fingerprint import Null, Part
from minutia.core.portfolio import Portfolio
from minutia.core.yardstick import EARLY, LEAST_ANSWERS, RARE, powers, rejects, yardstick
from minutia.stats.multiple import combine_rank_exact
from minutia.stats.nulls import Significance, exact_binomial, rank_p

LEFT, RIGHT = range(12), range(12, 24)
N = 24


@dataclass(frozen=True)
class Drawn(Share):
    """Labels that were drawn at random: an exact method."""

    name = "drawn"
    is_exact = True

    def exact(self, fp, path, sizes):
        counts = sizes[: len(path)]
        p = exact_binomial(round(path[-1] * counts[-1]), int(counts[-1]), 1 / CLASSES)
        return replace(p, floor=exact_binomial(int(sizes[-1]), int(sizes[-1]), 1 / CLASSES).p, e_value=None)


@dataclass(frozen=True)
class Weighed(Share):
    """Reads one number off the weights and asks nothing."""

    name = "weighed"
    owner_needs = suspect_needs = reads = Access.WEIGHTS

    def score(self, fp, observation):
        return float(observation.arrays["weighed.x"])


def portfolio(*methods, looks=(N,), spent=(), controls=None, parts=(LEFT, RIGHT), threats=("prune",), n=N):
    """A fingerprint of several methods with these rows each."""
    chosen = Portfolio(methods)
    fp = fingerprint(n, looks=looks, spent=spent, controls=controls, threats=threats)
    members = tuple(Part(m.key, tuple(rows)) for m, rows in zip(methods, parts, strict=True))
    return chosen, replace(fp, method=chosen.key, members=members)


def hits(left, right, third=0):
    """Matches on so many probes of the first, the second and, where there is one, the third member."""
    return {*range(left), *range(12, 12 + right), *range(24, 24 + third)}


SPENT = [hits(a, b) for a, b in [(0, 1), (1, 0), (2, 2), (1, 2), (3, 1), (2, 3), (0, 0), (1, 1)]]


# --- columns


def test_a_plain_method_is_one_column_in_its_own_unit():
    fp = fingerprint(12, looks=(6, 12), spent=[{0}, {1, 7}, {2, 8, 9}])
    of = null(fp, [1, 2, 3])
    stick = yardstick(Share(12), fp, of)
    (column,) = stick.columns
    assert (column.tail, column.first, column.exact) == (1.0, 0, False)
    assert stick.looks == (6, 12) and column.raw.shape == (3, 2)
    assert stick.shown(stick.path(matching(fp, "s", 6))).tolist() == [0.0, 0.5]
    np.testing.assert_array_equal(stick.innocent, column.raw)


def test_every_member_scores_its_own_probes_only():
    chosen, fp = portfolio(Share(11), Share(12), spent=SPENT)
    of = null(fp, [hits(1, 2), hits(3, 4)])
    stick = yardstick(chosen, fp, of)
    assert [c.method for c in stick.columns] == list(chosen.methods)
    path = stick.path(matching(fp, "s", hits(6, 9)))
    np.testing.assert_allclose(path, [[6 / 12], [9 / 12]])
    np.testing.assert_allclose([c.raw[:, 0] for c in stick.columns], [[1 / 12, 3 / 12], [2 / 12, 4 / 12]])


def test_a_member_says_nothing_before_six_of_its_answers():
    """Of the first nine probes three belong to the second member."""
    parts = ([0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14], [6, 7, 8, *range(15, 24)])
    chosen, fp = portfolio(Share(11), Share(12), looks=(6, 9, 18, N), spent=SPENT, parts=parts)
    stick = yardstick(chosen, fp, null(fp, [1, 2, 3]))
    assert [c.first for c in stick.columns] == [0, 2] and LEAST_ANSWERS == 6
    path = stick.path(matching(fp, "s", N))
    assert np.isnan(path).tolist() == [[False] * 4, [True, True, False, False]]
    assert np.isneginf(stick.standardised(path)).tolist() == np.isnan(path).tolist()
    assert np.isfinite(stick.shown(path)).all()


def test_a_small_member_speaks_when_all_of_it_was_asked():
    parts = (range(20), range(20, 24))
    chosen, fp = portfolio(Share(11), Share(12), looks=(10, 22, N), spent=SPENT, parts=parts)
    stick = yardstick(chosen, fp, null(fp, [1, 2, 3]))
    assert [c.first for c in stick.columns] == [0, 2]


def test_lost_probes_silence_the_member_that_lost_too_many():
    chosen, fp = portfolio(Share(11), Share(12), spent=SPENT)
    of = null(fp, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    stick = yardstick(chosen, fp, of, lost=frozenset(fp.probes.ids[i] for i in range(12, 19)))
    assert [c.first for c in stick.columns] == [0, 1]
    assert np.isneginf(stick.columns[1].null).all() and np.isfinite(stick.highest).all()
    assert stick.significance(stick.path(matching(fp, "s", hits(12, 0)))).p == pytest.approx(0.1)


def test_of_one_root_the_highest_score_counts_in_every_column():
    chosen, fp = portfolio(Share(11), Share(12), spent=SPENT)
    family = [matching(fp, f"c{i}", h, root="one") for i, h in enumerate([hits(9, 0), hits(0, 8)])]
    stick = yardstick(chosen, fp, Null("unrelated", (*family, matching(fp, "other", 0))))
    assert stick.m == 2
    np.testing.assert_allclose([c.raw[:, 0] for c in stick.columns], [[9 / 12, 0], [8 / 12, 0]])


# --- units


@pytest.mark.parametrize("spent", [SPENT, [hits(1, 1)] * 4, [hits(0, 0), hits(12, 0), hits(1, 1), hits(2, 2)]])
def test_a_members_unit_is_how_far_innocents_stray_or_half_of_the_owner(spent):
    chosen, fp = portfolio(Share(11), Share(12), spent=spent)
    stick = yardstick(chosen, fp, null(fp, [1, 2, 3]))
    for column, rows in zip(stick.columns, (LEFT, RIGHT), strict=True):
        rates = np.array([len(set(s) & set(rows)) / 12 for s in spent])
        z = np.sort((rates - column.scale.mean[0]) / column.scale.sd[0])
        quartile = np.quantile(z, 0.75)
        stray = quartile + RARE * (z[z >= quartile] - quartile).mean()
        owner = (1 - column.scale.mean[0]) / column.scale.sd[0]
        assert column.tail == pytest.approx(max(1, stray, owner / 2))


def test_the_owners_own_model_lies_at_most_two_units_away():
    """A long tail makes the unit longer, so one unruly member does not set the bar for all."""
    chosen, fp = portfolio(Share(11), Share(12), spent=[*SPENT, hits(11, 0)])
    stick = yardstick(chosen, fp, null(fp, [1, 2, 3]))
    own = stick.standardised(stick.path(fp.controls["owner"][0]))[:, -1]
    assert own[0] < own[1] <= 2


def test_without_two_spent_models_the_unit_is_the_declared_one():
    for spent in ([], [hits(1, 1)]):
        chosen, fp = portfolio(Share(11), Share(12), spent=spent)
        assert [c.tail for c in yardstick(chosen, fp, null(fp, [1, 2, 3])).columns] == [1.0, 1.0]


def test_early_looks_count_less_than_late_ones():
    fp = fingerprint(12, looks=(6, 12), spent=[{0}, {1, 7}, {2, 8, 9}])
    (column,) = yardstick(Share(12), fp, null(fp, [1, 2, 3])).columns
    path = np.array([0.5, 0.5])
    plain = column.scale.transform(path)
    np.testing.assert_allclose(column.standardised(path), plain * [0.5**EARLY, 1.0])
    np.testing.assert_allclose(column.standardised(path[:1]), plain[:1] * 0.5**EARLY)


@dataclass(frozen=True)
class Keen(Share):
    """The same as the other, under a name of its own."""

    name = "keen"


COPIES = {"prune": [hits(12, 12, third) for third in (0, 0, 0, 0, 0, 6, 6, 6, 6, 6)]}
"""All are recognised by the first two members, half of them by the third."""


def test_a_member_far_behind_the_two_best_does_not_count():
    """Whatever it says: neither the null's largest scores nor the suspect's hang on it."""
    methods, parts = (Share(11), Share(12), Keen(12)), (LEFT, RIGHT, range(24, 36))
    chosen, fp = portfolio(*methods, n=36, looks=(36,), spent=SPENT, controls=COPIES, parts=parts)
    of = null(fp, [hits(a, b, 12) for a, b in [(0, 1), (2, 0), (1, 1), (3, 1), (0, 0), (1, 2), (2, 2), (0, 3), (1, 0)]])
    stick = yardstick(chosen, fp, of)
    assert [c.counts for c in stick.columns] == [True, True, False] and len(stick.ranked) == 2
    assert chosen.judge(fp, matching(fp, "s", hits(12, 12, 0)), of, alpha=0.1).outcome == "match"
    framed = chosen.judge(fp, matching(fp, "s", hits(0, 0, 12)), of, alpha=0.1)
    assert framed.p_value > 0.1 and [m.counts for m in framed.members] == [True, True, False]
    assert framed.members[2].p_value is not None


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=2, max_size=6))
def test_units_do_not_hang_on_the_null(pool):
    """They would treat the null's models and the suspect differently, and the rank would no longer be exact."""
    copies = {"prune": [hits(a, b) for a, b in [(12, 3), (9, 6), (7, 7), (5, 12)]]}
    chosen, fp = portfolio(Share(11), Share(12), spent=SPENT, controls=copies)
    first, other = (yardstick(chosen, fp, null(fp, some)) for some in ([hits(*p) for p in pool], [hits(0, 0)] * 3))
    assert [(c.tail, c.counts) for c in first.columns] == [(c.tail, c.counts) for c in other.columns]


def test_the_best_two_members_count_however_far_apart_they_are():
    copies = {"prune": [hits(12, 0)] * 9 + [hits(12, 6)]}
    chosen, fp = portfolio(Share(11), Share(12), spent=SPENT, controls=copies)
    stick = yardstick(chosen, fp, null(fp, [1, 2, 3]))
    assert [c.counts for c in stick.columns] == [True, True]
    assert stick.columns[1].tail > stick.columns[0].tail


# --- the joint p-value


def test_the_largest_of_both_members_is_ranked():
    chosen, fp = portfolio(Share(11), Share(12), spent=SPENT)
    of = null(fp, [hits(a, b) for a, b in [(1, 1), (4, 0), (0, 4), (2, 2), (1, 0), (0, 1), (3, 0), (0, 0), (1, 2)]])
    stick = yardstick(chosen, fp, of)
    z = np.max([c.null[:, -1] for c in stick.columns], axis=0)
    np.testing.assert_allclose(stick.highest, z)
    for mine in (hits(0, 9), hits(9, 0), hits(2, 2), hits(0, 0)):
        path = stick.path(matching(fp, "s", mine))
        assert stick.significance(path) == rank_p(stick.standardised(path).max(), z)
    assert stick.significance(stick.path(matching(fp, "s", hits(9, 0)))).p == pytest.approx(0.1)


def test_one_member_that_matches_everything_is_enough():
    """An evaded member costs nothing: whichever is silent, the other still convicts."""
    chosen, fp = portfolio(Share(11), Share(12), spent=SPENT)
    of = null(fp, [hits(i % 3, i % 4) for i in range(9)])
    for mine in (hits(12, 0), hits(0, 12)):
        verdict = chosen.judge(fp, matching(fp, "s", mine), of, alpha=0.1)
        assert (verdict.outcome, verdict.p_value) == ("match", pytest.approx(0.1))


innocents = st.lists(
    st.tuples(st.frozensets(st.integers(0, N - 1), max_size=18), st.integers(0, 3)), min_size=5, max_size=9
)


@given(innocents, st.sampled_from([(N,), (7, 13, N), (6, N)]), st.integers(0, N - 1))
def test_the_joint_p_of_a_portfolio_is_valid(pool, looks, lost):
    """Whoever of m + 1 exchangeable innocents is drawn as the suspect: p <= k/(m+1) for at most k of them."""
    parts = ([i for i in range(N) if i % 3], [i for i in range(N) if not i % 3])
    chosen, fp = portfolio(Share(11), Share(12), looks=looks, spent=SPENT, parts=parts)
    models = [matching(fp, f"m{i}", h) for i, (h, _) in enumerate(pool)]
    gone = frozenset({fp.probes.ids[lost]})
    ps = []
    for i, suspect in enumerate(models):
        of = Null("unrelated", tuple(models[:i] + models[i + 1 :]))
        stick = yardstick(chosen, fp, of, lost=gone)
        path = stick.path(suspect)
        ps.append(stick.significance(path).p)
        assert not stick.convicts(path, 0.3) or rejects(stick.significance(path), 0.3)
    for k in range(1, len(ps) + 1):
        assert sum(p <= k / len(ps) + 1e-12 for p in ps) <= k


@given(innocents)
def test_other_null_models_on_the_same_yardstick(pool):
    chosen, fp = portfolio(Share(11), Share(12), looks=(8, N), spent=SPENT)
    models = [matching(fp, f"m{i}", h) for i, (h, _) in enumerate(pool)]
    first, whole = Null("unrelated", tuple(models[:2])), Null("unrelated", tuple(models))
    stick = yardstick(chosen, fp, first)
    again = stick.against(np.array([stick.path(o) for o in models]))
    direct = yardstick(chosen, fp, whole)
    suspect = matching(fp, "s", hits(5, 7))
    assert again.m == direct.m == len(models)
    assert again.significance(again.path(suspect)) == direct.significance(direct.path(suspect))


def test_unlike_the_null_is_not_yet_like_the_owner_in_any_member():
    """Five of twelve are above all innocents, who match one or none, and still less than halfway to the owner."""
    chosen, fp = portfolio(Share(11), Share(12), spent=SPENT)
    of = null(fp, [hits(i % 2, 0) for i in range(9)])
    weak, strong = (chosen.judge(fp, matching(fp, "s", hits(n, 0)), of, alpha=0.1) for n in (5, 8))
    assert (weak.p_value, strong.p_value) == (pytest.approx(0.1), pytest.approx(0.1))
    assert (weak.outcome, strong.outcome) == ("inconclusive", "match") and "weak-resemblance" in weak.flags


def test_weakness_of_one_member_does_not_spoil_the_strength_of_another():
    chosen, fp = portfolio(Share(11), Share(12), spent=SPENT)
    of = null(fp, [hits(i % 2, i % 3) for i in range(9)])
    assert chosen.judge(fp, matching(fp, "s", hits(5, 9)), of, alpha=0.1).outcome == "match"


# --- exact members


EXACT = (Share(11), Drawn(12))


def test_an_exact_member_needs_no_null():
    chosen, fp = portfolio(*EXACT, spent=SPENT)
    verdict = chosen.judge(fp, matching(fp, "s", hits(0, 12)), Null.none(), alpha=0.01)
    p = exact_binomial(12, 12, 1 / CLASSES).p
    assert (verdict.outcome, verdict.null_kind) == ("match", "exact")
    assert verdict.p_value == pytest.approx(p / 0.1) and "null-missing" not in verdict.flags


@pytest.mark.parametrize("mine", [(0, 0), (12, 0), (0, 12), (3, 6), (12, 12)])
def test_rank_and_exact_share_alpha_nine_to_one(mine):
    chosen, fp = portfolio(*EXACT, spent=SPENT)
    of = null(fp, [hits(i % 3, i % 4) for i in range(19)])
    stick = yardstick(chosen, fp, of)
    path = stick.path(matching(fp, "s", hits(*mine)))
    rank = rank_p(stick.standardised(path).max(), stick.highest)
    exact = exact_binomial(mine[1], 12, 1 / CLASSES)
    assert stick.significance(path).p == pytest.approx(min(1, rank.p / 0.9, exact.p / 0.1))
    assert len(stick.ranked) == 1 and stick.highest.shape == (19,)


def test_what_exact_members_match_is_no_part_of_the_rank():
    """Null models that know all drawn labels change nothing: the exact member has no null."""
    chosen, fp = portfolio(*EXACT, spent=SPENT)
    plain, knowing = (null(fp, [hits(i % 3, n) for i in range(19)]) for n in (0, 12))
    suspect = matching(fp, "s", hits(12, 0))
    one, two = (chosen.judge(fp, suspect, of, alpha=0.1) for of in (plain, knowing))
    assert one.p_value == two.p_value == pytest.approx(0.05 / 0.9)


def test_exact_members_are_averaged_as_e_values():
    chosen, fp = portfolio(Drawn(11), Drawn(12), spent=())
    stick = yardstick(chosen, fp, Null.none())
    found = stick.significance(stick.path(matching(fp, "s", hits(12, 0))))
    ps = [exact_binomial(12, 12, 0.2).p, exact_binomial(0, 12, 0.2).p]
    e = np.mean([1 / (2 * np.sqrt(p)) for p in ps])
    assert found.kind == "exact" and found.p == pytest.approx(1 / e, rel=0.01)
    assert found.floor == pytest.approx(2 * np.sqrt(ps[0]), rel=0.01) and found.p >= found.floor


def test_one_exact_member_alone_keeps_its_own_p():
    chosen, fp = portfolio(*EXACT, spent=SPENT)
    (_, column) = yardstick(chosen, fp, Null.none()).columns
    assert column.significance(np.array([0.5])).p == pytest.approx(exact_binomial(6, 12, 0.2).p)
    assert column.significance(np.array([np.nan])).kind == "none"


def test_an_exact_member_that_was_not_asked_yet_says_nothing():
    chosen, fp = portfolio(*EXACT, looks=(12, N), spent=SPENT)
    of = null(fp, [hits(i % 3, i % 4) for i in range(19)])
    stick = yardstick(chosen, fp, of)
    first = stick.path(matching(fp, "s", N).only(fp.probes.ids[:12]))
    rank = rank_p(stick.standardised(first).max(), stick.highest)
    assert stick.significance(first).p == combine_rank_exact(rank, Significance(None, None, "none")).p


def test_a_null_too_small_for_the_rank_part_says_how_many_are_needed():
    """Five drawn labels cannot reach a tenth of alpha, and 99 null models cannot reach nine tenths of it."""
    chosen, fp = portfolio(*EXACT, spent=SPENT, parts=(range(21), range(21, 24)))
    of = null(fp, [hits(i % 3, 0) for i in range(99)])
    verdict = chosen.judge(fp, matching(fp, "s", N), of, alpha=0.01)
    assert "null-too-small" in verdict.flags and "111 are needed" in verdict.reasons[0]
    enough = null(fp, [hits(i % 3, 0) for i in range(111)])
    assert chosen.judge(fp, matching(fp, "s", N), enough, alpha=0.01).outcome == "match"


def test_the_owner_is_measured_at_the_level_that_the_null_of_a_portfolio_allows():
    chosen, fp = portfolio(*EXACT, spent=SPENT, parts=(range(21), range(21, 24)))
    of = null(fp, [hits(i % 3, 0) for i in range(99)])
    assert powers(yardstick(chosen, fp, of), fp, 0.01)["owner"] == 1.0


# --- what members say by themselves


def test_members_are_shown_below_the_verdict():
    chosen, fp = portfolio(*EXACT, spent=SPENT)
    of = null(fp, [hits(i % 3, i % 4) for i in range(19)])
    verdict = chosen.judge(fp, matching(fp, "s", hits(12, 6)), of, alpha=0.1)
    ranked, exact = verdict.members
    assert (ranked.method, exact.method) == tuple(m.key for m in EXACT)
    assert (ranked.asked, ranked.score, ranked.p_value, ranked.kind) == (12, 1.0, 0.05, "rank")
    assert ranked.standardised == pytest.approx(verdict.score, abs=1e-5)
    assert (exact.asked, exact.score, exact.standardised, exact.kind) == (12, 0.5, None, "exact")
    assert exact.p_value == pytest.approx(exact_binomial(6, 12, 0.2).p)
    assert verdict.plain()["members"][0]["method"] == ranked.method


def test_a_member_that_says_nothing_is_shown_so():
    chosen, fp = portfolio(Share(11), Share(12), looks=(12, N), spent=SPENT)
    of = null(fp, [hits(i % 3, i % 4) for i in range(19)])
    verdict = chosen.judge(fp, matching(fp, "s", N).only(fp.probes.ids[:12]), of, alpha=0.1)
    first, second = verdict.members
    assert first.kind == "rank" and second == (Share(12).key, 0, None, None, None, "none", True)


def test_a_plain_method_has_no_members():
    fp = fingerprint(12)
    assert Share(12).judge(fp, matching(fp, "s", 9), null(fp, [1] * 9), alpha=0.1).members == ()


def test_refused_answers_help_nobody():
    chosen, fp = portfolio(Share(11), Share(12), spent=SPENT)
    of = null(fp, [hits(i % 3, i % 4) for i in range(9)])
    status = np.zeros(N, np.uint8)
    status[:12] = Status.REFUSED
    open_, hidden = (
        chosen.judge(fp, seen(fp, "s", labels_with(N, hits(2, 3)), status=s), of, alpha=0.1)
        for s in (np.zeros(N, np.uint8), status)
    )
    assert hidden.p_value >= open_.p_value and "refusals" in hidden.flags


# --- members that read weights


def read_off(fp, name, value, matched=()):
    """An observation with a number that was read off the weights."""
    found = matching(fp, name, set(matched))
    return found if value is None else replace(found, arrays={"weighed.x": np.array(value)})


@pytest.fixture
def weighed():
    chosen, fp = portfolio(Share(11), Weighed(12), parts=(range(N), ()), threats=())
    spent = tuple(read_off(fp, f"spent {i}", i / 10, hits(i % 3, 0)) for i in range(8))
    own = read_off(fp, "owner", 9.0, range(N))
    fp = replace(fp, reference=spent, controls={"owner": (own,)})
    of = Null("unrelated", tuple(read_off(fp, f"null {i}", i / 20, hits(i % 4, 0)) for i in range(9)))
    return chosen, fp, of


def test_open_weights_are_a_column_of_their_own(weighed):
    """A copy that was trained until it answers like nobody is still read off its weights."""
    chosen, fp, of = weighed
    verdict = chosen.judge(fp, read_off(fp, "s", 8.0), of, alpha=0.1)
    assert (verdict.outcome, verdict.p_value) == ("match", pytest.approx(0.1))
    assert [m.method for m in verdict.members] == [m.key for m in chosen.methods]


def test_closed_weights_are_left_out_for_everybody(weighed):
    chosen, fp, of = weighed
    shut = chosen.judge(fp, read_off(fp, "s", None, range(N)), of, alpha=0.1)
    alone = yardstick(chosen, fp, of, read=False)
    assert shut.outcome == "match" and [c.method for c in alone.columns] == [Share(11)]


def test_a_null_model_behind_an_api_closes_the_weights_for_everybody(weighed):
    chosen, fp, of = weighed
    mixed = replace(of, observations=(*of.observations[:-1], read_off(fp, "api", None)))
    verdict = chosen.judge(fp, read_off(fp, "s", 8.0), mixed, alpha=0.1)
    assert verdict.outcome == "inconclusive"


def test_where_every_member_reads_weights_they_must_be_open():
    methods = (Weighed(11), Weighed(12))
    chosen, fp = portfolio(*methods, n=0, looks=(0,), parts=((), ()))
    seen_ = read_off(fp, "api", None)
    with pytest.raises(UsageError, match="expected a suspect whose weights are open"):
        chosen.judge(fp, seen_, Null.none(), alpha=0.1)
