"""A small laboratory of trained language models: copies are found, strangers are not, promises are kept."""

from itertools import combinations

import numpy as np
import pytest
from tests.lineage_lab import Shape, lora, trained, tuned

from minutia.attacks import launder_transformer as lt
from minutia.core.tensors import Arrays
from minutia.methods.weights.comparison import compare
from minutia.methods.weights.order import unit_order
from minutia.methods.weights.streams import Stream
from minutia.stats.nulls import type_one_bound

TEXT, OTHER = "a made-up language", "another made-up language"
FAMILIES = {"gated": Shape(layers=3), "experts": Shape(layers=2, units=40, experts=3)}
STEPS, DRAWS = 250, 400

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """Three trainings of one recipe, two of them on one order of the data; copies; one start, two texts."""
    shape = FAMILIES[request.param]
    models = [trained(shape, TEXT, 40 + at, STEPS, order=7 if at < 2 else None) for at in range(3)]
    copies = {
        "tuned": tuned(models[0], shape, OTHER, 1, steps=150),
        "adapters": lora(models[0], shape, OTHER, 2, steps=40),
        "averaged with a stranger": lt.averaged(models[0], models[2]),
        "int4": lt.quantised(models[0], 4),
        "pruned": lt.pruned(models[0]),
    }
    return shape, models, copies, trained(shape, OTHER, 40, STEPS)


def test_copies_are_found_as_they_are(family):
    _, models, copies, _ = family
    for kind, copy in copies.items():
        found = compare(Arrays(models[0]), Arrays(copy))
        assert (found.relation, found.null) == ("derived", "exact"), kind
        assert dict(found.tests)["unit order"] <= 1e-6, kind


@pytest.mark.parametrize("rotate", [True, False])
def test_copies_are_found_in_disguise(family, rotate):
    shape, models, copies, _ = family
    for kind, copy in copies.items():
        hidden = lt.launder(copy, shape.attention, np.random.default_rng(3), rotate=rotate)
        found = compare(Arrays(models[0]), Arrays(hidden))
        assert (found.relation, found.outcome) == ("derived", "match"), kind


def test_copies_are_found_with_their_tokens_in_another_order(family):
    shape, models, copies, _ = family
    for kind, copy in copies.items():
        rng = np.random.default_rng(5)
        hidden = lt.reorder_vocabulary(lt.launder(copy, shape.attention, rng), rng.permutation(512))
        found = compare(Arrays(models[0]), Arrays(hidden))
        # Half a stranger, in models this small, leaves too little to align by.
        assert (found.relation, found.test) == ("derived", "geometry") or "stranger" in kind, kind


def test_an_average_is_called_one(family):
    _, models, copies, _ = family
    found = compare(Arrays(models[0]), Arrays(copies["averaged with a stranger"]))
    assert found.merged == pytest.approx(0.5, abs=0.1)


def test_strangers_of_one_recipe_are_unrelated(family):
    shape, models, copies, _ = family
    for one, other in combinations(models, 2):
        assert compare(Arrays(one), Arrays(other)).relation == "unrelated"
    hidden = lt.launder(copies["tuned"], shape.attention, np.random.default_rng(4))
    assert compare(Arrays(hidden), Arrays(models[1])).relation == "unrelated"


def test_one_initialisation_is_no_copy(family):
    _, models, _, start = family
    found = compare(Arrays(models[0]), Arrays(start))
    assert (found.relation, found.outcome) == ("shared ancestor or initialisation", "inconclusive")


def test_the_exact_test_keeps_its_promise(family):
    """H0 made true: a stranger's units and stream in random orders."""
    _, models, _, _ = family
    first, ps = Stream.of(Arrays(models[0]), "first"), []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        other = lt.permute_units(lt.permute_stream(models[2], rng), rng)
        ps.append(unit_order(first, Stream.of(Arrays(other), "second"), rng).p)
    for level in (0.1, 0.05, 0.01):
        assert sum(p <= level for p in ps) <= type_one_bound(DRAWS, 10**6, level)
