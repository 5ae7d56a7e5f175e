"""The promised error rates, and simulations of what a wrong rule costs, each with a fixed seed.

Tolerances say how far a figure depends on the settings chosen here.
"""

import numpy as np
import pytest
from scipy.stats import betabinom, binom

from minutia.stats import (
    LabelEProcess,
    Standardiser,
    calibrators_needed,
    e_process_p,
    exact_binomial,
    extrapolated_beta_binomial,
    fisher,
    full_error,
    joint_maximum,
    label_e_path,
    path_p,
    rank_p,
    running_max,
    type_one_bound,
)

LEVELS = (0.1, 0.05, 0.01)
LOOKS = np.array([10, 20, 30, 40, 51])
SPREAD = 32  # Beta(.43 * 32, .57 * 32): its binomial accusations are about .14 at .05


def assert_valid(ps, *, conservative=False):
    """Rate at most the level within 3.5 standard errors, and about the level unless conservative."""
    for alpha in LEVELS:
        rate, error = np.mean(np.asarray(ps) <= alpha), np.sqrt(alpha * (1 - alpha) / len(ps))
        assert rate <= alpha + 3.5 * error, (alpha, rate)
        assert conservative or rate >= alpha - 3.5 * error, (alpha, rate)


def correlated(rng, shape, correlation=0.5):
    """Normal scores, correlated along the last axis."""
    common, own = rng.standard_normal((*shape[:-1], 1)), rng.standard_normal(shape)
    return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own


def match_rates(rng, models):
    """Match rates of innocents at five looks, shape (*models, 5): models are the unit, not queries."""
    rates = rng.beta(0.43 * SPREAD, 0.57 * SPREAD, models)
    matches = rng.random((*models, LOOKS[-1])) < rates[..., None]
    return matches.cumsum(axis=-1)[..., LOOKS - 1] / LOOKS


def orders(rng, hits, total, runs):
    """Random orders of a list of which the suspect matches exactly `hits`."""
    return rng.permuted(np.tile(np.arange(total) < hits, (runs, 1)), axis=1)


def rank_ps(table):
    """Rank p-values of the first row in each of R tables, shape (R, m + 1)."""
    return (1 + (table[:, 1:] >= table[:, :1]).sum(axis=1)) / table.shape[1]


def ranks(table):
    return table.argsort(axis=1).argsort(axis=1)


# Every test of ours keeps its level: new suspect, new nulls, new spent models in each draw.


def test_the_rank_test_keeps_its_level():
    rng = np.random.default_rng(1)
    tables = rng.standard_normal((2000, 100))
    assert_valid([rank_p(row[0], row[1:]).p for row in tables])


def test_the_rank_test_keeps_its_level_under_ties():
    rng = np.random.default_rng(2)
    tables = rng.binomial(10, 0.4, (2000, 100)) / 10
    assert_valid([rank_p(row[0], row[1:]).p for row in tables], conservative=True)


def test_the_path_test_keeps_its_level():
    rng = np.random.default_rng(3)
    ps = []
    for spent, table in zip(match_rates(rng, (2000, 20)), match_rates(rng, (2000, 100)), strict=True):
        paths = Standardiser.fit(spent, asked=LOOKS).transform(table)
        ps.append(path_p(paths[0], paths[1:]).p)
    assert_valid(ps)


def test_stopping_at_the_first_small_p_keeps_the_level():
    """The analyst looks at all five looks and would stop at any of them."""
    rng = np.random.default_rng(4)
    fixed = Standardiser.fit(match_rates(rng, (20,)), asked=LOOKS)
    tables = fixed.transform(match_rates(rng, (1000, 40)))
    best = [min(path_p(paths[0, :look], paths[1:]).p for look in range(1, 6)) for paths in tables]
    assert_valid(best, conservative=True)
    assert best == [path_p(paths[0], paths[1:]).p for paths in tables]


def test_the_joint_maximum_keeps_its_level_with_looks_and_dependence():
    rng = np.random.default_rng(5)
    ps = []
    for table in correlated(rng, (2000, 120, 4 * 3)).reshape(2000, 120, 4, 3):
        table = table * [[1], [5], [0.1], [30]] + [[0], [9], [0], [-40]]  # scores in four units
        fixed = Standardiser.fit(table[:20])
        ps.append(joint_maximum(table[20], table[21:], fixed).p)
    assert_valid(ps)


@pytest.mark.parametrize(("n", "rate"), [(10, 0.5), (40, 0.1), (100, 0.01)])
def test_the_exact_binomial_keeps_its_level(n, rate):
    ps = np.array([exact_binomial(hits, n, rate).p for hits in range(n + 1)])
    for alpha in LEVELS:
        assert binom.pmf(np.flatnonzero(ps <= alpha), n, rate).sum() <= alpha


def test_the_label_e_process_keeps_its_level_with_nulls_in_it():
    """q0 is the largest of m null models' rates; the suspect is one more of them, refused no extra look."""
    rng = np.random.default_rng(6)
    m, total, runs = calibrators_needed(0.05, "e-process"), 60, 3000
    rates = rng.binomial(total, rng.beta(0.6, 6, (runs, m + 1))) / total
    evidence = np.array(
        [label_e_path(orders(rng, round(r[0] * total), total, 1)[0], total, r[1:].max()).max() for r in rates]
    )
    assert np.mean(1 / evidence <= 0.025) <= full_error(0.025, m)
    assert np.mean(rates[:, 0] > rates[:, 1:].max(axis=1)) > 0.01  # the second source of error is there
    assert_valid([e_process_p(e, m).p for e in evidence], conservative=True)


def test_false_alarms_against_one_null_set_stay_below_the_beta_binomial_bound():
    rng = np.random.default_rng(7)
    thresholds = np.sort(rng.standard_normal((4000, 99)), axis=1)[:, -5]
    alarms = (rng.standard_normal((4000, 300)) > thresholds[:, None]).sum(axis=1)
    assert np.mean(alarms > type_one_bound(300, 99, 0.05)) <= 0.025 + 0.009
    # The binomial interval, which forgets that the innocents share their nulls, is left four times too often.
    assert np.mean(alarms > binom.ppf(0.975, 300, 0.05)) > 0.1
    assert betabinom(300, 5, 95).mean() == pytest.approx(alarms.mean(), rel=0.03)


# The conformal p-value.


def test_without_the_plus_one_the_level_doubles():
    """B = 100: quoted .0198 at level .01, and p = 0 once in 101 innocent cases."""
    tables = np.random.default_rng(8).standard_normal((40_000, 101))
    naive = (tables[:, 1:] >= tables[:, :1]).mean(axis=1)
    assert np.mean(naive <= 0.01) == pytest.approx(2 / 101, abs=0.0025)
    assert np.mean(naive == 0) == pytest.approx(1 / 101, abs=0.0018)
    assert np.mean(rank_ps(tables) <= 0.01) <= 0.01


@pytest.mark.parametrize(("m", "quoted"), [(6, 0.132), (19, 0.046), (99, 0.005)])
def test_an_innocent_exceeds_the_largest_null_as_often_as_the_floor(m, quoted):
    rng = np.random.default_rng(9)
    matches = betabinom.rvs(51, 0.43 * SPREAD, 0.57 * SPREAD, size=(20_000, m + 1), random_state=rng)
    rate = np.mean(matches[:, 0] > matches[:, 1:].max(axis=1))
    assert rate == pytest.approx(quoted, abs=0.008)
    assert rate <= 1 / (m + 1)


# Binomial tails on natural matches.


@pytest.mark.parametrize(("m", "quoted", "with_largest"), [(6, 0.162, 0.020), (19, 0.143, 0.004), (99, 0.136, 0.001)])
def test_more_nulls_do_not_help_a_binomial(m, quoted, with_largest):
    rng = np.random.default_rng(10)
    matches = betabinom.rvs(51, 0.43 * SPREAD, 0.57 * SPREAD, size=(20_000, m + 1), random_state=rng)
    suspect, null = matches[:, 0], matches[:, 1:] / 51
    assert np.mean(binom.sf(suspect - 1, 51, null.mean(axis=1)) <= 0.05) == pytest.approx(quoted, abs=0.012)
    assert np.mean(binom.sf(suspect - 1, 51, null.max(axis=1)) <= 0.05) == pytest.approx(with_largest, abs=0.004)


def test_the_extrapolated_tail_is_about_right_where_its_assumption_holds():
    """And would decide nothing all the same: on real models the assumption is the question."""
    rng = np.random.default_rng(11)
    matches = betabinom.rvs(51, 0.43 * SPREAD, 0.57 * SPREAD, size=(1500, 100), random_state=rng)
    ps = np.array([extrapolated_beta_binomial(row[0], 51, row[1:]).p for row in matches])
    assert 0.025 < np.mean(ps <= 0.05) < 0.065


# Many scores, one p-value.


def test_standardising_by_the_nulls_alone_breaks_the_level():
    """K = 4, correlation .5, m = 19: quoted .075; ranks .049, z over all rows .045, smallest p .143."""
    tables = correlated(np.random.default_rng(12), (20_000, 20, 4))
    null = tables[:, 1:]
    by_nulls = (tables - null.mean(axis=1, keepdims=True)) / null.std(axis=1, keepdims=True)
    by_all = (tables - tables.mean(axis=1, keepdims=True)) / tables.std(axis=1, keepdims=True)
    rates = [np.mean(rank_ps(z.max(axis=2)) <= 0.05) for z in (by_nulls, by_all)]
    assert rates == pytest.approx([0.075, 0.045], abs=0.008)
    assert np.mean(rank_ps(ranks(tables).sum(axis=2)) <= 0.05) == pytest.approx(0.049, abs=0.006)
    columns = 1 + (null >= tables[:, :1]).sum(axis=1)
    assert np.mean(columns.min(axis=1) / 20 <= 0.05) == pytest.approx(0.143, abs=0.012)


@pytest.mark.parametrize(("m", "quoted"), [(99, 0.04), (199, 0.03), (499, 0.18)])
def test_a_maximum_of_ranks_is_blind_where_the_standardised_one_sees_all(m, quoted):
    """One of 8 columns fires at 20 sd, alpha .01; the correlation was not recorded, .6 fits the .18."""
    rng = np.random.default_rng(13)
    tables = correlated(rng, (300, m + 21, 8), 0.6)
    tables[:, 20, 0] += 20
    power = np.mean([joint_maximum(t[20], t[21:], Standardiser.fit(t[:20])).p <= 0.01 for t in tables])
    assert power == 1.0
    assert np.mean(rank_ps(ranks(tables[:, 20:]).max(axis=2)) <= 0.01) <= quoted + 0.05


# Combining p-values.


def test_fisher_only_over_separate_permutation_groups():
    """Quoted .046 for separate groups, .139 for four matrices of one stream, .044 for these pooled."""
    rng = np.random.default_rng(14)
    units = np.arange(12)

    def order_statistics(shape):
        return (rng.permuted(np.tile(units, (*shape, 1)), axis=-1) * units).sum(axis=-1)

    null = np.sort(order_statistics((999,)))
    ps = (1 + 999 - np.searchsorted(null, order_statistics((4000, 4)))) / 1000
    assert np.mean([fisher(row) <= 0.05 for row in ps]) == pytest.approx(0.046, abs=0.012)
    assert np.mean([fisher(np.repeat(p, 4)) <= 0.05 for p in ps[:, 0]]) == pytest.approx(0.139, abs=0.02)
    assert np.mean(ps[:, 0] <= 0.05) == pytest.approx(0.044, abs=0.012)


# The label e-process.


def test_the_label_e_process_rejects_a_true_null_rarely():
    """N = 100, q0 = .12, true rate .12, alpha .01: quoted .0075, .0045 over 200,000 orders."""
    path = label_e_path(orders(np.random.default_rng(15), 12, 100, 8000), 100, 0.12)
    assert np.mean(path.max(axis=1) >= 100) == pytest.approx(0.0045, abs=0.003)
    assert_valid(1 / running_max(path)[:, -1], conservative=True)


@pytest.mark.parametrize(("hits", "quoted"), [(40, 16), (60, 6), (95, 3)])
def test_the_label_e_process_stops_early_on_copies(hits, quoted):
    fired = label_e_path(orders(np.random.default_rng(16), hits, 100, 2001), 100, 0.12) >= 100
    assert fired.any(axis=1).all()
    assert np.median(fired.argmax(axis=1) + 1) == quoted


@pytest.mark.slow
def test_the_label_e_process_one_answer_at_a_time_over_many_lists():
    """Any list at or below q0, weighted or not, stopped when it looks best."""
    rng = np.random.default_rng(17)
    evidence = []
    for _ in range(3000):
        weights = rng.choice([0.5, 1.0, 3.0], 60) if rng.random() < 0.5 else np.ones(60)
        hits = rng.random(60) < rng.beta(1, 6)
        process = LabelEProcess(60, float(weights @ hits / weights.sum()), list(weights))
        for match in hits:  # the list itself was drawn in random order
            process.update(bool(match))
        evidence.append(process.evidence)
    assert_valid(1 / np.array(evidence), conservative=True)


# Looking early.


def test_repeating_the_plain_p_breaks_the_level_and_the_path_maximum_keeps_it():
    """Five looks, m = 39: quoted .083 at level .05 for the repeated p, .044 for the path maximum."""
    rng = np.random.default_rng(18)
    tables = match_rates(rng, (4000, 40))
    repeated = np.min([rank_ps(tables[..., look]) for look in range(5)], axis=0)
    assert np.mean(repeated <= 0.05) == pytest.approx(0.083, abs=0.015)
    fixed = Standardiser.fit(match_rates(rng, (20,)), asked=LOOKS)
    paths = fixed.transform(tables)
    assert np.mean([path_p(p[0], p[1:]).p <= 0.05 for p in paths]) == pytest.approx(0.044, abs=0.012)
    assert np.mean(repeated <= 0.05) > 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.slow
def test_the_path_test_keeps_its_level_over_many_looks_and_null_sizes():
    """A hundred looks at scores of heavy tails: the error is alpha, whatever the number of looks."""
    rng = np.random.default_rng(19)
    for m in (19, 99):
        ps = []
        for _ in range(3000):
            scores = rng.standard_t(2, (m + 21, 100)).cumsum(axis=1) / np.arange(1, 101)
            paths = Standardiser.fit(scores[:20]).transform(scores[20:])
            ps.append(path_p(paths[0], paths[1:]).p)
        assert_valid(ps, conservative=m == 19)
