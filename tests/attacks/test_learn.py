"""Attacks that train the victim further: what is trained, on what, and what it is said to cost."""

from dataclasses import replace

import numpy as np
import pytest

from minutia import catalog
from minutia.attacks.learn import FineTuneAll, FineTuneLast, RetrainAll, RetrainLast, Transfer, chosen
from minutia.checks import toy_bench
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.model import Plan
from minutia.core.probe import numbered

BENCH = toy_bench()
TOY, THIEF = BENCH.owner, BENCH.thief
FINE_TUNING = (FineTuneLast, FineTuneAll, RetrainLast, RetrainAll)


def rng(seed=0):
    return np.random.default_rng(seed)


def changed(copy, parent=TOY):
    """Names of the tensors that are not the parent's."""
    before = dict(parent.tensors())
    return {n for n, w in copy.tensors() if w.shape != before[n].shape or not np.array_equal(w, before[n])}


def effort(copy):
    return tuple(copy.card.fidelity[name] for name in ("inputs", "queries", "steps"))


@pytest.mark.parametrize(
    ("attack", "names"),
    [
        (FineTuneLast(), {"w1", "b1"}),
        (RetrainLast(), {"w1", "b1"}),
        (FineTuneAll(), {"w0", "b0", "w1", "b1"}),
        (RetrainAll(), {"w0", "b0", "w1", "b1"}),
        (Transfer(layers="last"), {"w1", "b1"}),
        (Transfer(layers="all"), {"w0", "b0", "w1", "b1"}),
    ],
    ids=lambda a: getattr(a, "key", "")[:24],
)
def test_what_is_trained_is_what_the_name_says(attack, names):
    assert changed(attack.apply(TOY, THIEF, rng())) == names


def test_retraining_all_starts_from_a_fresh_head_on_the_old_body():
    copy = RetrainAll(epochs=0).apply(TOY, THIEF, rng())
    assert changed(copy) == {"w1", "b1"}  # nothing trained yet: only the head was drawn anew
    assert not dict(copy.tensors())["b1"].any()
    trained = RetrainAll(epochs=30, learning_rate=1e-2).apply(TOY, THIEF, rng())
    assert trained.card.fidelity["accuracy"] > 0.7 > copy.card.fidelity["accuracy"]


@pytest.mark.parametrize("attack", FINE_TUNING)
def test_a_full_training_counts_its_inputs_and_steps(attack):
    n, made = len(THIEF.inputs), attack(epochs=3, batch_size=50)
    assert effort(made.apply(TOY, THIEF, rng())) == (n, 0, 3 * -(-n // 50))


@pytest.mark.parametrize("attack", FINE_TUNING)
def test_labels_of_the_victim_are_asked_for_and_the_true_ones_not_looked_at(attack):
    wrong = replace(THIEF, labels=np.zeros(len(THIEF.labels), int))
    asking = attack(labels="victim", epochs=2)
    copy = asking.apply(TOY, wrong, rng())
    assert copy.card.id == asking.apply(TOY, THIEF, rng()).card.id
    assert copy.card.id != attack(epochs=2).apply(TOY, wrong, rng()).card.id
    assert effort(copy)[1] == len(THIEF.inputs)


def test_a_share_uses_that_many_inputs_and_another_seed_others():
    attack = FineTuneAll(share=0.25, epochs=2)
    copy = attack.apply(TOY, THIEF, rng())
    assert effort(copy) == (40, 0, 2)
    rows = rng().permutation(160)[:40]
    generator = rng()
    generator.permutation(160)
    by_hand = TOY.trained(
        THIEF.inputs[rows], THIEF.labels[rows], Plan(2, learning_rate=1e-3), generator.integers(2**31)
    )
    assert copy.card.id == by_hand.card.id
    assert effort(FineTuneAll(share=1e-9).apply(TOY, THIEF, rng()))[0] == 1


def test_rows_are_distinct_and_all_of_them_at_a_share_of_one():
    found = chosen(100, 0.3, rng())
    assert len(set(found.tolist())) == 30 and found.max() < 100
    assert chosen(5, 1.0, rng()).tolist() == [0, 1, 2, 3, 4] and chosen(0, 0.5, rng()).size == 0


def test_optimiser_schedule_and_decay_reach_the_training():
    keys = [FineTuneAll(**{name: value}) for name, value in (("optimiser", "sgd"), ("weight_decay", 0.5))]
    keys += [FineTuneAll(schedule="cosine"), FineTuneAll(schedule="steps"), FineTuneAll(batch_size=7), FineTuneAll()]
    assert len({k.apply(TOY, THIEF, rng()).card.id for k in keys}) == len(keys)


def test_presets_are_the_numbers_of_the_papers():
    tuned = catalog.attack("fine_tune_all/adv-tra")
    assert (tuned.epochs, tuned.optimiser, tuned.learning_rate, tuned.weight_decay) == (50, "sgd", 1e-3, 5e-4)
    assert tuned.plan().momentum == 0.9 and {tuned.plan().rate_at(e / 50) for e in range(50)} == {1e-3}
    retrained = catalog.attack("retrain_all/wrt")
    assert (retrained.epochs, retrained.labels) == (5, "victim")
    assert catalog.attack("retrain_last/wrt").epochs == 10 and catalog.attack("fine_tune_all/deepjudge").epochs == 10
    assert catalog.attack("fine_tune_last/adi").epochs == 20


# --- another task


def test_without_foreign_data_pairs_of_classes_become_one():
    own = replace(THIEF, foreign=None)
    copy = Transfer(epochs=60, learning_rate=1e-2).apply(TOY, own, rng())
    answers = copy.ask(numbered(THIEF.inputs, {}))
    assert answers.scores.shape == (160, 3)
    assert np.mean(answers.labels == THIEF.labels // 2) > 0.9
    assert copy.card.root == TOY.card.root and copy.card.parents == (TOY.card.id,)
    assert "accuracy" not in copy.card.fidelity, "the classes mean something else: there is no accuracy to compare"


def test_foreign_data_gives_its_classes_and_its_share():
    labels = np.arange(60) % 7
    copy = Transfer(epochs=2, share=0.5).apply(TOY, replace(THIEF, foreign=(THIEF.inputs[:60], labels)), rng())
    assert copy.ask(numbered(THIEF.inputs, {})).scores.shape == (160, 7) and effort(copy) == (30, 0, 2)


# --- refusals


@pytest.mark.parametrize(
    "key",
    [
        "fine_tune_all(share=0.0)",
        "fine_tune_all(share=1.5)",
        "fine_tune_all(share=nan)",
        "fine_tune_all(labels=guessed)",
        "transfer(layers=some)",
        "transfer/wrt",
    ],
)
def test_parameters_that_cannot_work_are_refused(key):
    with pytest.raises(UsageError, match="expected"):
        catalog.attack(key)


@pytest.mark.parametrize("key", ["fine_tune_all(optimiser=lion)", "fine_tune_all(schedule=never)"])
def test_what_no_model_trains_with_is_refused_when_it_is_carried_out(key):
    with pytest.raises(UsageError, match="expected optimiser adam or sgd"):
        catalog.attack(key).apply(TOY, THIEF, rng())


def test_a_victim_that_has_diverged_labels_nothing():
    lost = TOY.rebuilt({n: np.full_like(w, np.nan) for n, w in TOY.tensors()})
    with pytest.raises(ModelError, match="diverged"):
        FineTuneAll(labels="victim").apply(lost, THIEF, rng())
    copy = FineTuneAll().apply(lost, Material(THIEF.inputs, THIEF.labels), rng())
    assert copy.card.parents == (lost.card.id,)
