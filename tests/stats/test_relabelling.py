"""The best renaming of classes: known answers and laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.stats import best_relabelling

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=30)


def test_known_answers():
    assert best_relabelling([0, 0, 1, 1], [7, 7, 3, 3]) == 1.0
    assert best_relabelling([0, 1, 2, 3], [0, 0, 0, 0]) == 0.25
    assert best_relabelling([0, 0, 0, 1], [1, 1, 0, 0]) == 0.75


def test_labels_as_large_as_a_hostile_suspect_likes_cost_nothing():
    assert best_relabelling([0, 1], [2**62, 5]) == 1.0


@given(LABELS, st.permutations(range(5)))
def test_a_renamed_copy_is_found(labels, names):
    assert best_relabelling(labels, [names[label] for label in labels]) == 1.0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_never_below_plain_agreement(pairs):
    own, seen = np.array(pairs).T
    assert best_relabelling(own, seen) >= np.mean(own == seen) - 1e-12


@pytest.mark.parametrize(("own", "seen"), [([], []), ([0], [0, 1]), ([-1], [0]), ([[0]], [[0]])])
def test_what_is_no_labelling_is_refused(own, seen):
    with pytest.raises(ValueError, match="expected two equally long rows"):
        best_relabelling(own, seen)
