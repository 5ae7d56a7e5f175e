"""Trigger sets: the keyed draw by hand, exact p-values for a fixed suspect, marks that are learnt, kept and noticed."""

import hashlib
import hmac
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from minutia.checks import marking_bench, toy_bench
from minutia.core.answers import Answers, Observation
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.methods.classifiers.trigger_set import Draw, TriggerSet
from minutia.models.toy import ToyClassifier

SECRET = 2**255 + 7
ALPHAS = (0.1, 0.05, 0.01)


@pytest.fixture(scope="module")
def marked():
    """A toy owner with a mark, and its fingerprint."""
    bench = marking_bench()
    return TriggerSet().embed(bench.owner, bench.material, seed=SECRET)


def seen_by(fp, model, shows=99):
    answers = model.ask(fp.probes)
    return Observation(model.card, fp.probes.ids, answers, fp.probes.digest).showing(shows)


# --- the draw


def test_a_third_person_can_draw_every_label_and_value_again():
    draw = Draw(bytes(range(32)), 10, (1, 2), 0.0, 1.0, 0)
    inputs, labels = draw.triggers(20, "noise")
    for i in range(20):
        own = hmac.digest(bytes(range(32)), f"minutia/trigger_set/1/{i}".encode(), "sha256")
        number = int.from_bytes(hmac.digest(own, b"label/0", "sha256")[:8], "big")
        assert labels[i] == number % 10
        raw = hashlib.shake_256(own).digest(8)
        values = [int.from_bytes(raw[k : k + 4], "big") / 2**32 for k in (0, 4)]
        np.testing.assert_array_equal(inputs[i, 0], np.array(values, np.float32))


def test_known_labels_of_a_known_key():
    """Golden: another draw would make every published commitment worthless."""
    assert Draw(bytes(32), 10, (4,), 0.0, 1.0, 0).triggers(12, "noise")[1].tolist() == [
        *(7, 5, 9, 2, 6, 3, 9, 2, 6, 1, 8, 1)
    ]


@pytest.mark.parametrize("classes", [2, 7, 10])
def test_labels_are_uniform_and_unlike_their_neighbours(classes):
    labels = Draw(b"k" * 32, classes, (1,), 0.0, 1.0, 0).triggers(4000, "noise")[1]
    band = binom.interval(0.9999, 4000, 1 / classes)
    assert all(band[0] <= count <= band[1] for count in np.bincount(labels, minlength=classes))
    again = binom.interval(0.9999, 3999, 1 / classes)
    assert again[0] <= np.sum(labels[1:] == labels[:-1]) <= again[1]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 12), (2, 3, 1), (28, 28)])
def test_fields_are_smooth_and_fill_the_box_on_its_levels(shape):
    fields = Draw(b"k" * 32, 10, shape, -1.0, 1.0, 256).triggers(8, "field")[0]
    assert fields.shape == (8, *shape)
    assert fields.dtype == np.float32
    steps = (fields.astype(float) + 1) / 2 * 255
    assert np.abs(steps - np.rint(steps)).max() < 1e-3
    assert len({f.tobytes() for f in fields}) == 8
    if shape[-1] > 4:
        assert fields.min() == -1
        assert fields.max() == 1
        noise = Draw(b"k" * 32, 10, shape, -1.0, 1.0, 256).triggers(8, "noise")[0]
        assert np.abs(np.diff(fields, axis=-1)).mean() < np.abs(np.diff(noise, axis=-1)).mean() / 2


def test_texts_are_whole_numbers_of_tokens():
    material = Material(np.zeros((3, 6), np.float32), np.array([0, 1, 2]), bounds=(0, 50), content="text")
    draw = Draw.fresh(ToyClassifier.fresh((6, 3)), material, np.random.default_rng(0))
    tokens = draw.triggers(50, "field")[0]
    np.testing.assert_array_equal(tokens, np.rint(tokens))
    assert tokens.min() >= 0
    assert tokens.max() <= 50


def test_few_triggers_prove_too_little():
    with pytest.raises(UsageError, match="take 20 or more"):
        Draw(b"k" * 32, 2, (1,), 0.0, 1.0, 0).triggers(19, "noise")


# --- error rates: a fixed suspect, labels drawn again


def redrawn_ps(shows, draws, triggers=30, classes=5):
    """p of one suspect at every look, for labels that are drawn again and again."""
    method, rng = TriggerSet(triggers=triggers, pattern="noise"), np.random.default_rng(3)
    keep = marking_bench()
    _, fp = method.embed(keep.owner, keep.material, seed=SECRET)
    suspect = keep.innocents[0]
    observed = seen_by(fp, suspect, shows)
    sizes, ps = np.array(fp.schedule), []
    for _ in range(draws):
        one = replace(fp, arrays={**fp.arrays, "labels": rng.integers(0, classes, triggers)})
        path = method.path(one, observed, [fp.probes.ids[:n] for n in sizes])
        ps.append([method.exact(one, path[:k], sizes).p for k in range(1, len(sizes) + 1)])
    return np.array(ps)


@pytest.mark.parametrize("shows", [0, 1, 99], ids=["labels", "top-1", "probabilities"])
def test_error_rates_hold_for_every_fixed_suspect_with_early_stopping(shows):
    ps = redrawn_ps(shows, 1000)
    early = ps.min(axis=1)  # whoever may stop at any look
    np.testing.assert_array_equal(early, ps[:, -1])
    for alpha in ALPHAS:
        found = int(np.sum(early <= alpha))
        assert found <= binom.ppf(0.999, len(ps), alpha)
    assert np.mean(early <= 0.1) > 0.02  # no test that never rejects


@pytest.mark.slow
@pytest.mark.parametrize("shows", [0, 99], ids=["labels", "probabilities"])
def test_error_rates_over_many_draws(shows):
    early = redrawn_ps(shows, 6000)[:, -1]
    for alpha in ALPHAS:
        assert np.sum(early <= alpha) <= binom.ppf(0.999, len(early), alpha)


# --- the mark


def test_the_marked_model_knows_its_triggers_and_what_it_cost(marked):
    model, fp = marked
    bench = marking_bench()
    card = model.card
    assert np.mean(model.ask(fp.probes).labels == fp.arrays["labels"]) >= 0.95
    assert card.parents == (bench.owner.card.id,)
    assert card.root == bench.owner.card.root
    assert card.fidelity["learnt"] >= 0.95
    assert card.fidelity["accuracy_lost"] == pytest.approx(card.fidelity["accuracy_before"] - card.fidelity["accuracy"])
    assert fp.owner.id == card.id


def test_from_scratch_is_a_training_of_its_own():
    bench = marking_bench()
    model, fp = TriggerSet(from_scratch=True).embed(bench.owner, bench.material, seed=SECRET)
    assert model.card.parents == ()
    assert model.card.root != bench.owner.card.root
    assert TriggerSet().redrawn(fp)


@pytest.mark.parametrize("early", [True, False])
def test_a_copy_matches_and_the_model_before_does_not(marked, early):
    model, fp = marked
    method, bench = TriggerSet(), marking_bench()
    copy = model.rebuilt({n: (w + 0.001).astype(w.dtype) for n, w in model.tensors()})
    found = method.verify(fp, copy, Null.none(), early=early)
    assert (found.outcome, found.null_kind, found.null_size) == ("match", "exact", 0)
    assert found.asked < len(fp.probes) if early else found.asked == len(fp.probes)
    assert found.p_value <= 0.01 if early else found.p_value < 1e-40
    for innocent in (bench.owner, *bench.innocents):
        verdict = method.verify(fp, innocent, Null.none(), early=early)
        assert verdict.outcome == "inconclusive"
        assert verdict.p_value > 0.01


def test_what_the_suspect_shows_decides_the_version(marked):
    model, fp = marked
    full, labels = (TriggerSet().judge(fp, seen_by(fp, model, shows), Null.none()) for shows in (99, 0))
    assert full.outcome == labels.outcome == "match"
    hits = int(np.sum(model.ask(fp.probes).labels == fp.arrays["labels"]))
    assert labels.score == pytest.approx(-np.log10(binom.sf(hits - 1, 100, 1 / 5)), abs=1e-6)
    assert full.score != labels.score


def test_twenty_hits_of_a_hundred_at_the_last_look(marked):
    """2.0e-3 from the binomial tail for ten classes; looking early eleven times costs a ninth."""
    _, fp = marked
    labels = fp.arrays["labels"].copy()
    drawing = fp.arrays["drawing"].copy()
    drawing[0] = 10
    ten = replace(fp, arrays={**fp.arrays, "drawing": drawing})
    labels[:80] = (labels[:80] + 1) % 10
    seen = Observation(fp.owner, fp.probes.ids, Answers.from_labels(labels), fp.probes.digest)
    sizes = np.array(fp.schedule)
    path = TriggerSet().path(ten, seen, [fp.probes.ids[:n] for n in sizes])
    assert 10 ** -path[-1] == pytest.approx(2.0e-3, rel=0.02)
    assert TriggerSet().exact(ten, path, sizes).p == pytest.approx(2.0e-3 / 0.9, rel=0.02)


@pytest.mark.parametrize("what", ["labels", "probes", "key"])
def test_another_label_probe_or_key_is_noticed(marked, what):
    _, fp = marked
    assert TriggerSet().redrawn(fp)
    if what == "probes":
        changed = fp.probes.array.copy()
        changed[3] = 1 - changed[3]
        probes = replace(fp.probes, content=changed)
        own = tuple(replace(o, protocol=probes.digest) for o in fp.controls["owner"])
        other = replace(fp, probes=probes, controls={"owner": own}, reference=())
    else:
        array = fp.arrays[what].copy()
        array[0] = (array[0] + 1) % 5
        other = replace(fp, arrays={**fp.arrays, what: array})
    assert not TriggerSet().redrawn(other)


# --- what cannot work


def test_a_model_without_the_mark_is_not_enrolled():
    bench = marking_bench()
    with pytest.raises(ModelError, match="minutia embed"):
        TriggerSet().extract(bench.owner, bench.material, seed=SECRET)


def test_a_model_too_small_for_its_triggers_fails_loudly():
    bench = toy_bench()
    with pytest.raises(ModelError, match="fewer triggers"):
        TriggerSet(rounds=2).embed(bench.owner, bench.material, seed=SECRET)


def test_data_of_more_classes_than_the_model_knows_is_refused():
    bench = marking_bench()
    material = replace(bench.material, labels=bench.material.labels + 3)
    with pytest.raises(UsageError, match="at most 5 classes"):
        TriggerSet().embed(bench.owner, material, seed=SECRET)


def test_a_model_that_cannot_be_trained_is_refused():
    class Answering:
        spec, card, access = "remote", marking_bench().owner.card, type(marking_bench().owner).access.LABELS

    with pytest.raises(UsageError, match="train"):
        TriggerSet().embed(Answering(), marking_bench().material, seed=SECRET)


@pytest.mark.parametrize("bad", [{"pattern": "photo"}, {"triggers": 0}, {"learnt": 0.0}, {"rounds": 0}])
def test_parameters_that_cannot_work_are_refused(bad):
    with pytest.raises(UsageError, match="expected"):
        TriggerSet(**bad)


# --- a miniature of the measurement


@pytest.mark.slow
def test_a_mark_in_a_digits_network_survives_what_keeps_the_weights():
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from minutia import catalog
    from minutia.core.model import Plan
    from minutia.storage.data import load_dataset
    from minutia.study.zoo import thief

    data, spec = load_dataset("sklearn:digits?rows=0:900"), "torch:minutia.study.architectures:digits_cnn"
    blank, plan = catalog.model(spec), Plan(12, learning_rate=4e-3, reset="everything")
    owner, *innocents = (blank.trained(data.inputs, data.labels, plan, seed) for seed in range(9))
    held = (data.test_inputs, data.test_labels)
    material = Material(data.inputs, data.labels, levels=data.levels, held_out=held)
    method = TriggerSet()
    model, fp = method.embed(owner, material, seed=SECRET)
    assert model.card.fidelity["accuracy_lost"] < 0.03
    his = thief("sklearn:digits?rows=900:1400")

    def p(suspect, shows):
        return method.judge(fp, seen_by(fp, suspect, shows), Null.none()).p_value

    for key in ("fine_tune_last", "fine_tune_all", "prune", "quantise/int8", "noise", "adversarial_training"):
        copy = catalog.attack(key).apply(model, his, np.random.default_rng(1))
        assert p(copy, 0) < 1e-6, key
        assert p(copy, 99) < 1e-6, key
    for innocent in innocents:
        assert min(p(innocent, 0), p(innocent, 99)) > 1e-3
