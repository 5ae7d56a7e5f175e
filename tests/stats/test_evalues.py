"""Known answers, then the e-process by exact enumeration of every order."""

import math
import sys
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.stats import LabelEProcess, average, e_to_p, full_error, label_e_path, p_to_e

BETS = (0.25, 0.5, 0.75, 0.95)


def every_order(items):
    return np.array(sorted(set(permutations(items))))


def test_the_calibrator_known_answers():
    assert p_to_e(0.01) == 5.0
    assert p_to_e(1.0) == 0.5
    assert p_to_e(0.0) == math.inf
    assert p_to_e(1e-4, kappa=0.25) == pytest.approx(250)


@pytest.mark.parametrize("kappa", [0.1, 0.5, 0.9])
def test_a_calibrated_uniform_p_has_mean_one(kappa):
    from scipy.integrate import quad

    assert quad(lambda p: p_to_e(p, kappa), 0, 1)[0] == pytest.approx(1, abs=1e-6)


@given(st.floats(0, 1))
def test_calibrating_there_and_back_never_gains(p):
    assert e_to_p(p_to_e(p)) >= p


def test_e_to_p_known_answers():
    assert (e_to_p(math.inf), e_to_p(100), e_to_p(1), e_to_p(0)) == (0.0, 0.01, 1.0, 1.0)


def test_average_known_answers():
    assert average([8.0, 0.0, 1.0]) == 3.0
    assert average([math.inf, 1.0], weights=[0, 2]) == 1.0
    assert average([math.inf, 1.0]) == math.inf


@pytest.mark.parametrize(
    ("e_values", "weights"),
    [
        ([], None),
        ([-1.0], None),
        ([math.nan], None),
        ([1.0], [0.0]),
        ([1.0, 2.0], [1.0]),
        ([1.0, 2.0], [2.0, -1.0]),
    ],
)
def test_averages_of_nothing_are_refused(e_values, weights):
    with pytest.raises(ValueError, match="expected"):
        average(e_values, weights)


@pytest.mark.parametrize(
    "call", [lambda: p_to_e(1.1), lambda: p_to_e(0.5, kappa=1), lambda: e_to_p(-1), lambda: e_to_p(math.nan)]
)
def test_numbers_that_are_no_evidence_are_refused(call):
    with pytest.raises(ValueError, match="got"):
        call()


def test_two_sources_of_error_add():
    assert full_error(0.01, 6) == pytest.approx(0.01 + 1 / 7)
    assert full_error(0.005, 199) == 0.01


def test_the_formula_by_hand():
    """N = 100, q0 = .12: mu is 12/100, then 11/99; one match, one mismatch."""
    first = [1 + lam * (1 - 0.12) / 0.12 for lam in BETS]
    second = [w * (1 - lam) for w, lam in zip(first, BETS, strict=True)]
    assert label_e_path([True, False], 100, 0.12) == pytest.approx([np.mean(first), np.mean(second)])


def test_a_match_beyond_the_budget_refutes():
    path = label_e_path([True, True, False, True, False], total=5, q0=0.4)
    assert math.isfinite(path[2]) and path[3] == path[4] == math.inf
    assert label_e_path([True], total=50, q0=0.0)[0] == math.inf


def test_no_bet_while_the_null_allows_every_match():
    """Budget 4 of 5: after one mismatch the items left may all match, so no answer is evidence either way."""
    for rest in ([True] * 4, [False] * 4):
        path = label_e_path([False, *rest], total=5, q0=0.8)
        assert path[0] == pytest.approx(1 - np.mean(BETS))
        assert (path == path[0]).all()
    assert (label_e_path([True, False, True], total=5, q0=1.0) == 1).all()


@pytest.mark.parametrize("k", range(1, 50))
def test_a_null_rate_of_k_in_n_is_a_budget_of_k(k):
    """Whatever k/49 is in floats, the k-th match is allowed and the next one refutes."""
    path = label_e_path(np.ones(k + 1 if k < 49 else k, dtype=bool), total=49, q0=k / 49)
    assert np.isfinite(path[:k]).all()
    assert k == 49 or path[k] == math.inf


@pytest.mark.parametrize(("total", "hits", "q0"), [(7, 3, 3 / 7), (8, 2, 0.25), (8, 2, 0.4), (8, 7, 0.9), (6, 0, 0.1)])
def test_the_process_is_a_supermartingale_over_all_orders(total, hits, q0):
    """Uniform over every order of a list whose rate is at most q0, the mean is at most 1 at every step."""
    path = label_e_path(every_order([1] * hits + [0] * (total - hits)), total, q0)
    assert (path.mean(axis=0) <= 1 + 1e-12).all()


def test_the_process_is_fair_at_the_edge_of_the_null_and_gains_beyond_it():
    at = label_e_path(every_order([1, 1, 1, 0, 0, 0, 0, 0]), 8, 3 / 8)
    beyond = label_e_path(every_order([1, 1, 1, 1, 0, 0, 0, 0])[:, :3], 8, 3 / 8)
    assert at.mean(axis=0) == pytest.approx(np.ones(8))
    assert beyond.mean(axis=0)[-1] > 1.05


@pytest.mark.parametrize("alpha", [0.5, 0.2, 0.1, 0.05])
def test_the_running_maximum_reaches_one_over_alpha_rarely(alpha):
    path = label_e_path(every_order([1, 1, 0, 0, 0, 0, 0, 0, 0, 0][:9]), 9, 2 / 9)
    assert (path.max(axis=1) >= 1 / alpha).mean() <= alpha


def test_weighted_items_are_fair_over_all_orders():
    """The weights travel with their items, the null bounds the weighted rate."""
    weights, hits = np.array([3.0, 1.0, 0.5, 2.0, 1.0, 2.5]), np.array([1, 0, 1, 0, 0, 1])
    orders = np.array(list(permutations(range(6))))
    at = label_e_path(hits[orders], 6, float(weights @ hits / weights.sum()), weights[orders])
    below = label_e_path(hits[orders], 6, 0.7, weights[orders])
    assert at.mean(axis=0) == pytest.approx(np.ones(6))
    assert (below.mean(axis=0) <= 1 + 1e-12).all()


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.floats(0, 1), st.floats(0.1, 100))
def test_equal_weights_are_no_weights(matches, q0, weight):
    plain = label_e_path(matches, 12, q0)
    assert label_e_path(matches, 12, q0, [weight] * 12) == pytest.approx(plain, rel=1e-6)


@given(st.lists(st.booleans(), max_size=20), st.floats(0, 1), st.booleans())
def test_one_answer_at_a_time_is_the_path(matches, q0, weighted):
    weights = list(np.linspace(0.5, 2, 20)) if weighted else None
    path, process = label_e_path(matches, 20, q0, weights), LabelEProcess(20, q0, weights)
    for step, match in enumerate(matches):
        process.update(match)
        assert process.e_value == pytest.approx(path[step])
        assert process.evidence == pytest.approx(max(1.0, path[: step + 1].max()))


def test_long_lists_neither_overflow_nor_vanish():
    sure = label_e_path(np.ones(3000, dtype=bool), 100_000, 0.05)
    blind = label_e_path(np.zeros(3000, dtype=bool), 100_000, 0.05)
    assert sure[-1] == pytest.approx(sys.float_info.max) and math.isfinite(sure[-1])
    assert 0 < blind[300] < 1e-30 and (blind >= 0).all()


def test_shapes_are_kept():
    assert label_e_path(np.zeros((2, 3, 5), dtype=bool), 10, 0.2).shape == (2, 3, 5)
    assert label_e_path([], 10, 0.2).shape == (0,)


@pytest.mark.parametrize(
    "call",
    [
        lambda: label_e_path([True] * 3, 2, 0.5),
        lambda: label_e_path([math.nan], 2, 0.5),
        lambda: label_e_path([2], 2, 0.5),
        lambda: label_e_path([True], 0, 0.5),
        lambda: label_e_path([True], 2, 1.5),
        lambda: label_e_path([True], 2, 0.5, [1.0]),
        lambda: label_e_path([True], 2, 0.5, [0.0, 0.0]),
        lambda: label_e_path([True], 2, 0.5, [1.0, -1.0]),
        lambda: LabelEProcess(2, math.nan),
        lambda: LabelEProcess(2, 0.5).update(0.7),
        lambda: [process.update(True) for process in [LabelEProcess(1, 1.0)] * 2],
    ],
)
def test_answers_that_are_none_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call()
