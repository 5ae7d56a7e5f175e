"""Repeated questions: known rates of change, and what cannot be measured."""

import numpy as np
import pytest

from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.errors import ModelError, UsageError
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.models.metered import Metered
from minutia.models.stability import repeat_noise
from minutia.models.toy import ToyClassifier

TOY = ToyClassifier.fresh((4, 6, 3), 1)
PROBES = numbered(np.random.default_rng(0).random((12, 4), dtype=np.float32), {"channel": "array"})


class Turning:
    """Gives the next of these answers at each call, over and over."""

    spec, card, access = "turning", ModelCard("turning", "turning"), Access.LABELS

    def __init__(self, *answers):
        self.answers, self.asked = answers, []

    def ask(self, probes):
        self.asked.append((probes.repeat, probes.ids))
        return self.answers[(len(self.asked) - 1) % len(self.answers)]


def labels(*values):
    return Answers.from_labels(np.array(values))


def scores(*rows):
    return Answers.from_scores(np.array(rows))


def test_a_steady_model_has_none():
    found = repeat_noise(TOY, PROBES)
    assert (found.flip_rate, found.score_deviation, found.queries) == (0.0, 0.0, 30)


def test_the_rate_is_that_of_differing_pairs():
    """Of two probes one changes once in three askings: two of its three pairs differ, of six in all."""
    model = Turning(labels(0, 1), labels(0, 2), labels(0, 1))
    found = repeat_noise(model, PROBES.take([0, 1]))
    assert found.flip_rate == pytest.approx(2 / 6) and found.score_deviation is None and found.queries == 6


def test_the_rate_does_not_depend_on_how_often_one_asks():
    """A model that names one of two classes at random: two askings differ half of the time."""
    rng = np.random.default_rng(5)
    for repeats in (2, 3, 8):
        model = Turning(*[Answers.from_labels(rng.integers(0, 2, 4000)) for _ in range(repeats)])
        many = numbered(np.zeros((4000, 1)), {})
        assert repeat_noise(model, many, repeats, few=4000).flip_rate == pytest.approx(0.5, abs=0.03)


def test_scores_deviate_by_what_was_added():
    rng = np.random.default_rng(5)
    base = rng.random((500, 4))
    model = Turning(*[Answers.from_scores(base + rng.normal(0, 0.02, base.shape)) for _ in range(4)])
    found = repeat_noise(model, numbered(np.zeros((500, 1)), {}), 4, few=500)
    assert found.score_deviation == pytest.approx(0.02, rel=0.05)


def test_two_known_scores():
    model = Turning(scores([0.4, 0.6]), scores([0.6, 0.4]))
    assert repeat_noise(model, PROBES.take([0]), 2).score_deviation == pytest.approx(np.sqrt(0.02))


def test_lost_questions_are_left_out_and_refusals_are_answers():
    lost = Answers(np.array([Status.FAILED, Status.OK], np.uint8), np.array([-1, 1]))
    refused = Answers(np.array([Status.REFUSED, Status.OK], np.uint8), np.array([-1, 1]))
    assert repeat_noise(Turning(labels(0, 1), lost), PROBES.take([0, 1]), 2).flip_rate == 0.0
    assert repeat_noise(Turning(labels(0, 1), refused), PROBES.take([0, 1]), 2).flip_rate == 0.5
    nothing = repeat_noise(Turning(Answers.without(2, Status.FAILED)), PROBES.take([0, 1]))
    assert nothing.flip_rate is None and nothing.score_deviation is None


def test_scores_that_were_not_told_every_time_are_left_out():
    model = Turning(scores([0.5, 0.3, 0.2]).showing(1), scores([0.3, 0.5, 0.2]).showing(1))
    found = repeat_noise(model, PROBES.take([0]), 2)
    assert found.flip_rate == 1.0 and found.score_deviation is None


def test_the_repeats_are_none_of_those_that_are_judged_and_only_few_are_asked():
    model = Turning(labels(*[0] * 10))
    repeat_noise(model, PROBES, 3)
    assert [repeat for repeat, _ in model.asked] == [1, 2, 3]
    assert {ids for _, ids in model.asked} == {PROBES.ids[:10]}


def test_behind_a_meter_repeats_are_paid_for():
    model = Metered(TOY)
    repeat_noise(model, PROBES, 4, few=5)
    assert model.sent == 20


@pytest.mark.parametrize(("repeats", "few", "rows"), [(1, 10, 12), (3, 0, 12), (3, 10, 0)])
def test_nothing_to_compare_is_refused(repeats, few, rows):
    with pytest.raises(UsageError, match="expected 2 or more repeats of some probes"):
        repeat_noise(TOY, PROBES.take(range(rows)), repeats, few=few)


def test_a_change_of_classes_is_one_sentence():
    model = Turning(scores([0.4, 0.6]), scores([0.4, 0.3, 0.3]))
    with pytest.raises(ModelError, match="a model must score the same classes every time"):
        repeat_noise(model, PROBES.take([0]), 2)
