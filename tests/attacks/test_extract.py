"""Extraction: what is asked, what is learnt, and what cannot be."""

from dataclasses import replace

import numpy as np
import pytest

from minutia import catalog
from minutia.attacks.crafting import made_up, varied
from minutia.attacks.extract import Distil, ExtractLabels, ExtractProbabilities, softened
from minutia.checks import toy_bench
from minutia.core.access import Access
from minutia.core.answers import Answers
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.models.toy import ToyClassifier, open_model

BENCH = toy_bench()
TOY, THIEF = BENCH.owner, BENCH.thief
ATTACKS = (Distil, ExtractProbabilities, ExtractLabels)
TEXT = Material(
    np.arange(60, dtype=np.float32).reshape(20, 3) % 7, np.arange(20) % 2, bounds=(0.0, 9.0), levels=10, content="text"
)


def rng(seed=0):
    return np.random.default_rng(seed)


def agreement(one, other):
    probes = numbered(THIEF.held_out[0], {})
    return np.mean(one.ask(probes).labels == other.ask(probes).labels)


class Listening:
    """A victim that shows labels or scores and nothing else, and remembers what it was asked."""

    spec, card = "listening", ModelCard("listening", "listening")

    def __init__(self, scores=None, access=Access.LABELS | Access.SCORES):
        self.access, self.scores, self.asked = access, scores, []

    def ask(self, probes):
        self.asked.append(probes.array)
        if self.scores is not None:
            return Answers.from_scores(np.resize(self.scores, (len(probes), np.shape(self.scores)[-1])))
        answers = TOY.ask(probes)
        shown = answers.scores if Access.SCORES in self.access else None
        return replace(answers, logits=None, scores=shown)

    @property
    def count(self):
        return sum(len(array) for array in self.asked)


# --- what is asked


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    ("inputs", "asked"), [("own", 160), ("augmented", 800), ("synthetic", 1280), ("foreign", 60), ("jacobian", 1280)]
)
def test_every_question_is_counted_and_asked_once(attack, inputs, asked):
    victim = Listening()
    copy = attack(inputs=inputs, student="other", epochs=3).apply(victim, replace(THIEF, held_out=None), rng())
    assert victim.count == copy.card.fidelity["queries"] == copy.card.fidelity["inputs"] == asked
    assert all(np.array_equal(THIEF.stored(array), array) for array in victim.asked), "not what a victim receives"
    assert copy.card.root == victim.card.root and copy.card.parents == ("listening",)


@pytest.mark.parametrize(("inputs", "asked"), [("own", 40), ("augmented", 200), ("foreign", 15), ("jacobian", 320)])
def test_a_share_asks_for_less(inputs, asked):
    copy = Distil(inputs=inputs, share=0.25, epochs=2).apply(TOY, THIEF, rng())
    assert copy.card.fidelity["queries"] == asked
    if inputs == "own":
        assert copy.card.fidelity["steps"] == 2


def test_jacobian_rounds_double_what_was_asked_by_steps_of_the_given_size():
    victim = Listening()
    attack = ExtractLabels(inputs="jacobian", student="other", rounds=3, step=0.1, epochs=9)
    copy = attack.apply(victim, replace(THIEF, levels=None, held_out=None), rng())
    assert [len(array) for array in victim.asked] == [160, 160, 320, 640]
    moved = np.abs(victim.asked[1] - victim.asked[0])
    assert moved.max() == pytest.approx(0.1, abs=1e-6) and (moved > 0.09).mean() > 0.5
    steps = sum(3 * -(-n // 64) for n in (160, 320, 640)) + 9 * (1280 // 64)
    assert copy.card.fidelity["steps"] == steps


def test_jacobian_steps_lead_away_from_the_students_own_answer():
    inputs = THIEF.inputs
    stepped = ExtractLabels(step=0.2).stepped(TOY, inputs, replace(THIEF, levels=None))
    before, after = (TOY.ask(numbered(x, {})) for x in (inputs, stepped))
    rows = np.arange(len(inputs))
    assert np.all(after.scores[rows, before.labels] <= before.scores[rows, before.labels] + 1e-6)
    assert np.mean(after.labels != before.labels) > 0.5


# --- what is learnt


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("student", ["same", "other"])
@pytest.mark.parametrize("inputs", ["own", "augmented", "synthetic", "jacobian"])
def test_the_student_learns_to_answer_like_the_victim(attack, student, inputs):
    copy = attack(student=student, inputs=inputs, epochs=40, learning_rate=1e-2).apply(TOY, THIEF, rng())
    assert agreement(copy, TOY) > 0.7  # 0.2 to 0.3 by guessing
    assert not attack.keeps_weights


def test_a_copy_carries_the_students_spec_and_opens_again():
    copy = Distil(student="other").apply(TOY, THIEF, rng())
    assert copy.spec == "toy:mlp?sizes=16-10-5"
    again = open_model(copy.spec.removeprefix("toy:")).rebuilt(dict(copy.tensors()))
    assert again.card.id == copy.card.id


def test_probabilities_are_learnt_as_they_are_and_distilled_ones_softer():
    scores = TOY.ask(numbered(THIEF.inputs, {})).scores
    np.testing.assert_allclose(ExtractProbabilities().answers(TOY, THIEF.inputs)[1], scores, atol=1e-5)
    _, soft = Distil(temperature=3.0).answers(TOY, THIEF.inputs)
    by_hand = scores ** (1 / 3) / (scores ** (1 / 3)).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(soft, by_hand, atol=1e-4)
    assert Distil(temperature=3.0).plan().temperature == 3.0


def test_scores_without_logits_give_the_same_targets():
    np.testing.assert_allclose(
        softened(Listening(), THIEF.inputs, 2.0)[1], softened(TOY, THIEF.inputs, 2.0)[1], atol=1e-4
    )


@pytest.mark.parametrize("attack", [Distil, ExtractProbabilities])
def test_a_victim_that_only_names_classes_still_teaches(attack):
    victim = Listening(access=Access.LABELS)
    copy = attack(student="other", epochs=60, learning_rate=1e-2).apply(victim, THIEF, rng())
    assert agreement(copy, TOY) > 0.7


# --- odd answers


@pytest.mark.parametrize("attack", ATTACKS)
def test_zero_probability_and_lost_rows_do_no_harm(attack):
    rows = np.array([[1.0, 0, 0, 0, 0], [np.nan] * 5, [0, 1.0, 0, 0, 0], [np.inf, 0, 0, 0, 0]], np.float32)
    copy = attack(student="other", epochs=3).apply(Listening(scores=rows), replace(THIEF, held_out=None), rng())
    assert all(np.isfinite(w).all() for _, w in copy.tensors())
    assert copy.card.fidelity["inputs"] == 80 and copy.card.fidelity["queries"] == 160


def test_a_zero_is_a_small_probability_that_heat_makes_larger():
    victim = Listening(scores=np.array([[1.0, 0, 0, 0, 0]]))
    cold, hot = (Distil(temperature=t).answers(victim, THIEF.inputs)[1] for t in (1.0, 3.0))
    np.testing.assert_allclose(cold[0], [1, 1e-7, 1e-7, 1e-7, 1e-7], rtol=1e-4)
    assert hot[0, 1] > 1e-3


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_victim_without_answers_teaches_nothing(attack):
    with pytest.raises(ModelError, match="diverged"):
        attack(student="other").apply(Listening(scores=np.full((1, 5), np.nan)), THIEF, rng())


# --- material


def test_variations_stay_valid_and_near():
    found = varied(THIEF, THIEF.inputs, 600, rng())
    assert found.shape == (600, 1, 4, 4) and np.array_equal(THIEF.stored(found), found)

    def distance(images):
        """How far the nearest of the thief's own images is, on average."""
        return np.abs(images[:, None] - THIEF.inputs[None]).mean(axis=(2, 3, 4)).min(axis=1).mean()

    assert 0 < distance(found) < 0.6 * distance(rng().random((600, 1, 4, 4)))
    known = {image.tobytes() for image in THIEF.stored(THIEF.inputs)}
    assert np.mean([image.tobytes() in known for image in found]) < 0.15, "not varied at all"


def test_variations_of_text_and_text_out_of_nothing_are_tokens():
    found = varied(TEXT, TEXT.inputs, 200, rng())
    for place in range(3):
        assert set(found[:, place]) <= set(TEXT.inputs[:, place])
    assert not {tuple(row) for row in found} <= {tuple(row) for row in TEXT.inputs}
    drawn = made_up(TEXT, 300, rng())
    assert set(np.unique(drawn)) == set(range(10))


def test_images_out_of_nothing_are_smooth_and_use_the_whole_range():
    images = made_up(Material(np.zeros((1, 1, 8, 8)), np.zeros(1, int), bounds=(-1.0, 1.0)), 50, rng())
    assert images.min() == -1 and images.max() == 1 and images.dtype == np.float32
    neighbours = np.abs(np.diff(images, axis=-1)).mean()
    assert neighbours < 0.7 * np.abs(images[..., 1:] - rng(1).permutation(images[..., :-1])).mean()
    table = made_up(Material(np.zeros((1, 6)), np.zeros(1, int)), 400, rng())
    assert table.shape == (400, 6) and abs(table.mean() - 0.5) < 0.05


@pytest.mark.parametrize("inputs", ["own", "augmented", "synthetic"])
def test_text_is_extracted_too_but_has_no_gradients(inputs):
    victim = ToyClassifier.fresh((3, 4, 2))
    copy = ExtractLabels(inputs=inputs, epochs=2).apply(victim, TEXT, rng())
    assert copy.card.fidelity["queries"] >= 20
    with pytest.raises(UsageError, match="text"):
        ExtractLabels(inputs="jacobian").apply(victim, TEXT, rng())


# --- refusals and presets


def test_what_is_missing_is_named():
    bare = Material(THIEF.inputs, THIEF.labels)
    with pytest.raises(UsageError, match="foreign data for distil"):
        Distil(inputs="foreign").apply(TOY, bare, rng())
    with pytest.raises(UsageError, match="another architecture"):
        Distil(student="other").apply(TOY, bare, rng())
    with pytest.raises(UsageError, match="student that can be trained, got listening"):
        Distil().apply(Listening(), bare, rng())


@pytest.mark.parametrize(
    "key",
    [
        "distil(inputs=stolen)",
        "distil(student=none)",
        "distil(rounds=0)",
        "distil(step=0.0)",
        "distil(temperature=0.0)",
        "distil(temperature=nan)",
    ],
)
def test_parameters_that_cannot_work_are_refused(key):
    with pytest.raises(UsageError, match="expected"):
        catalog.attack(key)


def test_presets_are_the_numbers_of_the_papers():
    wrt = catalog.attack("distil/wrt")
    assert (wrt.epochs, wrt.temperature, wrt.optimiser, wrt.learning_rate) == (60, 3.0, "sgd", 0.1)
    rates = [round(wrt.plan().rate_at(epoch / 60), 6) for epoch in (0, 19, 20, 34, 35, 49, 50)]
    assert rates == [0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008]
    sac = catalog.attack("extract_labels/sac")
    assert (sac.epochs, sac.schedule, sac.learning_rate) == (200, "cosine", 0.05)
    jba = catalog.attack("extract_labels/deepjudge-jba")
    assert (jba.inputs, jba.rounds, jba.step) == ("jacobian", 6, 0.01)
    assert catalog.attack("extract_probabilities/knockoff").inputs == "foreign"
