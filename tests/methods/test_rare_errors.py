"""Rare errors: which probes are kept and why, the score by hand, what degrades and what is refused."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minutia.checks import learning_bench
from minutia.core.answers import Answers
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.core.probe import numbered
from minutia.methods.classifiers.rare_errors import CLIP, RareErrors, _gain, logits_of, pooled, recipes, together
from minutia.models.toy import ToyClassifier

SMALL = RareErrors(probes=30, candidates=600)


@lru_cache(maxsize=1)
def enrolled():
    bench = learning_bench()
    return bench, SMALL.extract(bench.owner, bench.material, seed=1)


def naming(label, size=4):
    """A network that names one class whatever it is asked."""
    bias = np.zeros(size)
    bias[label] = 5.0
    return ToyClassifier({"w0": np.zeros((3, size)), "b0": bias})


def seen(fp, model):
    return SMALL.asked(model, fp.probes)


# --- which probes


def test_probes_are_answers_that_shadows_rarely_give():
    bench, fp = enrolled()
    fit, _ = bench.material.parted()
    shared = np.mean([m.ask(fp.probes).labels == fp.answers.labels for m in fit.unrelated], axis=0)
    assert len(fp.probes) >= 10
    assert shared.max() <= 0.15 + 1e-9


def test_the_models_that_chose_the_probes_set_no_scale():
    bench, fp = enrolled()
    fit, screen = bench.material.parted()
    assert {o.subject.root for o in fp.reference} <= {m.card.root for m in screen.unrelated}
    assert fp.spent == {m.card.root for m in bench.material.unrelated}
    assert not {o.subject.root for o in fp.reference} & {m.card.root for m in fit.unrelated}


def test_an_owner_who_answers_like_everybody_has_no_rare_errors():
    inputs = np.random.default_rng(0).random((40, 3), dtype=np.float32)
    shadows = [naming(1) for _ in range(8)]
    for i, model in enumerate(shadows):
        model.card = replace(model.card, id=f"s{i}", root=f"s{i}")
    material = Material(inputs, np.zeros(40, int), unrelated=shadows)
    with pytest.raises(ModelError, match="as few others do, got 0"):
        SMALL.extract(naming(1), material)
    lone = SMALL.extract(naming(2), material)
    assert (lone.answers.labels == 2).all() and len(lone.probes) == 30


def named(label, recipe, count):
    """Models of one recipe that name one class, each with a root of its own."""
    found = [naming(label) for _ in range(count)]
    for i, model in enumerate(found):
        model.card = replace(model.card, id=f"{recipe}{i}", root=f"{recipe}{i}", recipe=recipe)
    return found


def test_models_are_grouped_by_recipe_where_there_are_four():
    models = [*named(0, "a", 5), *named(0, "b", 3), *named(0, "c", 4)]
    assert recipes(models) == [[*range(12)], [0, 1, 2, 3, 4], [8, 9, 10, 11]]
    assert recipes(models[:5]) == [[0, 1, 2, 3, 4]]


def test_what_another_architecture_usually_answers_is_not_rare():
    """Six of eighty shadows agree with the owner: less than a tenth, but all of their own kind."""
    inputs = np.random.default_rng(0).random((40, 3), dtype=np.float32)
    shadows = [*named(1, "cnn", 74), *named(2, "mlp", 6)]
    with pytest.raises(ModelError, match="as few others do, got 0"):
        SMALL.extract(naming(2), Material(inputs, np.zeros(40, int), unrelated=shadows))
    alike = [*named(1, "cnn", 74), *(replace_recipe(m, "cnn") for m in named(2, "mlp", 6))]
    assert len(SMALL.extract(naming(2), Material(inputs, np.zeros(40, int), unrelated=alike)).probes) == 30


def replace_recipe(model, recipe):
    model.card = replace(model.card, recipe=recipe)
    return model


@pytest.mark.parametrize("seed", range(5))
def test_copies_that_are_hard_to_tell_never_lower_the_top_to_where_shadows_are(seed):
    """The top of the scale is at least half of what copies gain on average, even where most gain nothing."""
    rng = np.random.default_rng(seed)
    shadows = rng.normal(0, 0.1, (9, 6))
    copies = np.concatenate([np.zeros((6, 6)), np.full((4, 6), 2.0)])
    gain = _gain(copies, shadows, np.arange(6))
    np.testing.assert_allclose(gain, (copies.mean(axis=0) - shadows.mean(axis=0)) / 2)
    assert gain.sum() > shadows.sum(axis=1).max()


def test_columns_that_say_the_same_are_not_chosen_twice():
    """Two copies of the best column and a weaker one of its own: the weaker one comes second."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 500))
    shadows = np.stack([first, first, second], axis=1)
    copies = np.tile([3.0, 3.0, 2.5], (10, 1))
    assert together(copies, shadows, 3).tolist()[:2] == [0, 2]


@given(arrays(float, (6, 5), elements=st.floats(-3, 3)), arrays(float, (7, 5), elements=st.floats(-3, 3)))
def test_columns_are_chosen_once(copies, shadows):
    assert sorted(together(copies, shadows, 9).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("pool", ["natural", "mixed", "noise", "all"])
def test_pools_hold_what_they_are_named_after(pool):
    rng = np.random.default_rng(0)
    inputs = np.where(rng.random((60, 2, 3, 3)) < 0.5, 0.25, 0.75).astype(np.float32)
    material = Material(inputs, np.zeros(60, int), held_out=(inputs[:5] / 2, np.zeros(5, int)), levels=256)
    points = pooled(material, pool, 90, np.random.default_rng(1))
    assert points.shape[1:] == (2, 3, 3) and len(points) <= 90
    np.testing.assert_array_equal(points, material.stored(points))
    known = {x.tobytes() for x in material.stored(np.concatenate([inputs, inputs[:5] / 2]))}
    share = np.mean([x.tobytes() in known for x in points])
    assert {"natural": share == 1, "all": 0.2 < share < 0.5}.get(pool, share < 0.1)
    if pool == "mixed":
        assert points.min() >= 0.12 and points.max() <= 0.76


def test_tokens_are_exchanged_and_never_averaged():
    tokens = np.random.default_rng(0).choice([2, 30, 400], (50, 6))
    material = Material(tokens, np.zeros(50, int), content="text", bounds=(0, 500))
    assert set(np.unique(pooled(material, "all", 300, np.random.default_rng(1)))) <= {2, 30, 400}


# --- the score


def test_logits_are_those_of_the_owners_label():
    answers = Answers.from_scores(np.array([[0.2, 0.8], [1.0, 0.0]]))
    np.testing.assert_allclose(logits_of(answers, np.array([1, 1])), [np.log(4), np.log(1e-4 / (1 - 1e-4))], rtol=1e-5)
    # A class that the model does not know gets nothing, and labels are all or nothing.
    assert logits_of(answers, np.array([2, 0])).tolist() == [
        pytest.approx(-9.21, abs=0.01),
        pytest.approx(9.21, abs=0.01),
    ]
    labels = Answers.from_labels(np.array([0, 1]))
    assert logits_of(labels, np.array([0, 2])).round(1).tolist() == [9.2, -9.2]


def test_the_score_is_what_is_gained_over_shadows_by_hand():
    bench, fp = enrolled()
    ids, model = fp.probes.ids[:7], bench.innocents[0]
    observation = seen(fp, model).only(ids)
    known = {name: a[:7] for name, a in fp.arrays.items()}
    rows, own = np.arange(7), fp.answers.labels[:7]
    p = np.clip(observation.answers.scores[rows, own].astype(float), 1e-4, 1 - 1e-4)
    z = np.clip((np.log(p / (1 - p)) - known["mean"]) / known["spread"], -CLIP, CLIP)
    wanted = (z - known["scores.base"]).sum() / known["scores.gain"].sum()
    assert wanted < 1 and SMALL.score(fp, observation) == pytest.approx(wanted)
    match = np.where(observation.answers.labels == own, known["match"], known["miss"])
    wanted = (match - known["labels.base"]).sum() / known["labels.gain"].sum()
    assert wanted < 1 and SMALL.score(fp, observation.showing(0)) == pytest.approx(wanted)
    own_match = known["match"] - known["labels.base"]
    most = own_match.sum() / known["labels.gain"].sum()
    assert most > 1
    own = seen(fp, bench.owner).only(ids).showing(0)
    assert SMALL.score(fp, own) == pytest.approx(1 + 0.1 * (most - 1))


@pytest.mark.parametrize("shows", [0, 1, 99])
def test_copies_score_high_and_innocents_low_whatever_is_shown(shows):
    bench, fp = enrolled()
    own, copies = seen(fp, bench.owner), [seen(fp, m) for m in bench.material.derived]
    innocents = [SMALL.score(fp, seen(fp, m).showing(shows)) for m in bench.innocents]
    assert SMALL.score(fp, own.showing(shows)) >= 1.0
    assert np.median([SMALL.score(fp, o.showing(shows)) for o in copies]) > max(innocents)
    assert np.mean(innocents) < 0.3


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4, unique=True), st.sampled_from([0, 1, 99]))
def test_the_path_is_the_score_of_prefixes(ends, shows):
    bench, fp = enrolled()
    observation = seen(fp, bench.innocents[1]).showing(shows)
    prefixes = [fp.probes.ids[:n] for n in sorted(ends) if n <= len(fp.probes)] or [fp.probes.ids]
    fast, slow = SMALL.path(fp, observation, prefixes), Method.path(SMALL, fp, observation, prefixes)
    np.testing.assert_allclose(fast, slow, atol=1e-12)


@given(st.sets(st.integers(0, 9)), st.sampled_from([0, 99]))
def test_the_more_is_refused_the_less_it_resembles(rows, shows):
    bench, fp = enrolled()
    observation = seen(fp, bench.material.derived[0]).showing(shows)
    status = observation.answers.status.copy()
    status[sorted(rows)] = 1
    silent = replace(observation, answers=replace(observation.answers, status=status))
    assert SMALL.score(fp, silent) <= SMALL.score(fp, observation) + 1e-12


def test_no_single_probe_carries_the_score():
    bench, fp = enrolled()
    observation = seen(fp, bench.innocents[2])
    before = SMALL.score(fp, observation)
    scores = observation.answers.scores.copy()
    scores[3] = np.eye(scores.shape[1])[fp.answers.labels[3]]
    after = SMALL.score(fp, replace(observation, answers=Answers.from_scores(scores)))
    assert before <= after <= before + 2 * CLIP / fp.arrays["scores.gain"].sum() + 1e-9


def test_early_looks_vary_more_and_a_few_models_that_agree_are_not_believed():
    sizes = np.array([6, 24, 96])
    scale = SMALL.scale(np.random.default_rng(0).normal(size=(20, 3)), sizes)
    assert scale.sd[0] > scale.sd[1] > scale.sd[2]
    assert SMALL.scale(np.zeros((5, 3)), sizes).sd[2] == pytest.approx(0.05)


# --- bad input


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"probes": 1}, "2 or more probes"),
        ({"candidates": 50}, "as many candidates"),
        ({"pool": "wild"}, "a pool of natural, mixed, noise or all, got 'wild'"),
        ({"unlike": 0.2}, "from 0.5 to 1, got 0.2"),
        ({"unlike": float("nan")}, "from 0.5 to 1"),
    ],
)
def test_parameters_that_make_no_sense_are_one_sentence(wrong, message):
    with pytest.raises(UsageError, match=message):
        RareErrors(**wrong)


def test_without_shadows_there_is_nothing_to_be_unlike():
    bench, _ = enrolled()
    with pytest.raises(UsageError, match="4 or more unrelated models"):
        SMALL.extract(bench.owner, replace(bench.material, unrelated=[]))


def test_a_suspect_that_was_asked_in_another_order_scores_the_same():
    bench, fp = enrolled()
    observation = seen(fp, bench.innocents[0])
    turned = SMALL.score(fp, observation.only(fp.probes.ids[::-1]))
    assert turned == pytest.approx(SMALL.score(fp, observation))
    assert numbered(fp.probes.array, {}).ids == fp.probes.ids
