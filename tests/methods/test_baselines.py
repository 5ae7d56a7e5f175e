"""The naive baselines and the score they share with IPGuard."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handmade import fingerprint, labels_with, matching, seen
from minutia.checks import toy_bench
from minutia.core.answers import Answers, Status
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.core.probe import numbered
from minutia.methods.classifiers.match_rate import MatchRate, bits_per_probe, confidence, matched
from minutia.methods.classifiers.natural_errors import NaturalErrors
from minutia.methods.classifiers.noise_agreement import NoiseAgreement
from minutia.models.toy import ToyClassifier


@dataclass(frozen=True)
class Rate(MatchRate):
    name = "rate"
    source = "none"

    def enrol(self, model, material, rng):
        raise NotImplementedError


# --- match rate


@given(st.frozensets(st.integers(0, 11)), st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True))
def test_the_path_is_the_share_of_matches_of_every_prefix(hits, ends):
    fp = fingerprint(12)
    observation = matching(fp, "s", hits)
    prefixes = [fp.probes.ids[:end] for end in sorted(ends)]
    fast, slow = Rate().path(fp, observation, prefixes), Method.path(Rate(), fp, observation, prefixes)
    np.testing.assert_array_equal(fast, slow)
    assert fast.tolist() == [pytest.approx(len([h for h in hits if h < end]) / end) for end in sorted(ends)]


def test_only_answers_that_were_given_match():
    """The owner's model named no class on probe 0; a suspect that names none there does not match."""
    fp = replace(fingerprint(4), answers=Answers.from_labels(np.array([-1, 1, 2, 3])))
    assert Rate().score(fp, seen(fp, "s", [-1, 1, 2, 3])) == 0.75
    refusing = seen(fp, "s", labels_with(4, 4), status=[0, Status.REFUSED, 0, Status.TRUNCATED])
    assert Rate().score(fp, refusing) == 0.25


@given(
    st.integers(1, 12),
    st.integers(1, 30),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_bits_are_signed_evidence(copies, innocents, p, q):
    found = bits_per_probe(np.full((copies, 1), p), np.full((innocents, 1), q))[0]
    mean_p, mean_q = (copies * p + 0.5) / (copies + 1), (innocents * q + 0.5) / (innocents + 1)
    assert (np.isfinite(found) and (found > 0) == (mean_p > mean_q)) or found == pytest.approx(0, abs=1e-9)


def test_without_copies_or_innocents_there_are_no_strong_bits():
    assert bits_per_probe(np.zeros((0, 2)), np.zeros((0, 2))).tolist() == [0, 0]


def test_confidence_is_the_score_of_the_owners_label():
    probes, own = numbered(np.eye(3, dtype=np.float32), {}), np.array([0, 1, 0])
    sure = ToyClassifier({"w0": 100 * np.eye(3), "b0": np.zeros(3)})
    assert confidence([sure], probes, own).round(3).tolist() == [[1, 1, 0]]
    assert matched([sure], probes, own).tolist() == [[True, True, False]]
    two = ToyClassifier.fresh((3, 2), seed=1)
    assert confidence([two], probes, np.array([2, 2, 2])).tolist() == [[0, 0, 0]]


# --- natural errors


def one_hot(count):
    return np.eye(count, dtype=np.float32)


def test_errors_are_what_the_owner_gets_wrong_held_out_ones_first():
    """An identity network on one-hot inputs names the class of the input."""
    owner = ToyClassifier({"w0": 5 * one_hot(4), "b0": np.zeros(4)})
    material = Material(one_hot(4), np.array([0, 0, 2, 0]), held_out=(0.5 * one_hot(4)[:2], np.array([3, 1])))
    fp = NaturalErrors(probes=10).extract(owner, material)
    assert fp.probes.array.tolist() == [[0.5, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert fp.answers.labels.tolist() == [0, 1, 3]


def test_errors_are_ordered_by_confidence_and_cut():
    owner = ToyClassifier({"w0": 5 * one_hot(4), "b0": np.zeros(4)})
    strengths = np.array([0.1, 0.9, 0.5, 0.7], np.float32)
    material = Material(one_hot(4) * strengths[:, None], (np.arange(4) + 1) % 4)
    fp = NaturalErrors(probes=3).extract(owner, material)
    assert fp.answers.labels.tolist() == [1, 3, 2]


def test_equal_errors_count_once():
    owner = ToyClassifier({"w0": 5 * one_hot(4), "b0": np.zeros(4)})
    material = Material(np.repeat(one_hot(4), 3, axis=0), np.repeat((np.arange(4) + 1) % 4, 3))
    assert len(NaturalErrors().extract(owner, material).probes) == 4


@pytest.mark.parametrize("wrong", [0, 1])
def test_an_owner_without_mistakes_is_one_sentence(wrong):
    owner = ToyClassifier({"w0": 5 * one_hot(4), "b0": np.zeros(4)})
    labels = np.arange(4)
    labels[:wrong] += 1
    with pytest.raises(ModelError, match=f"makes mistakes on the given data, got {wrong}"):
        NaturalErrors().extract(owner, Material(one_hot(4), labels))


def test_innocents_share_natural_errors_far_above_chance():
    """Why one over the number of classes is no null: five classes, yet innocents agree on most errors."""
    bench = toy_bench()
    fp = NaturalErrors().extract(bench.owner, bench.material)
    rates = [np.mean(m.ask(fp.probes).labels == fp.answers.labels) for m in bench.innocents]
    assert np.mean(rates) > 1.5 / 5


# --- noise


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4), (6,), (4, 4)])
def test_noise_has_the_datas_mean_and_deviation(shape):
    rng = np.random.default_rng(0)
    inputs = np.clip(rng.normal(0.5, 0.1, (300, *shape)), 0, 1).astype(np.float32)
    if len(shape) == 3:
        inputs[:, -1] = 0.2
    owner = ToyClassifier.fresh((int(np.prod(shape)), 3))
    fp = NoiseAgreement(probes=400).extract(owner, Material(inputs, np.zeros(300, int)), seed=1)
    noise = fp.probes.array
    assert noise.shape == (400, *shape) and noise.min() >= 0 and noise.max() <= 1
    if len(shape) == 3:
        np.testing.assert_allclose(noise[:, -1], 0.2, atol=1e-4)
    else:
        np.testing.assert_allclose([noise.mean(), noise.std()], [inputs.mean(), inputs.std()], atol=0.01)


@pytest.mark.parametrize("kind", [NaturalErrors, NoiseAgreement])
@pytest.mark.parametrize("probes", [1, 0, -3])
def test_a_fingerprint_has_two_or_more_probes(kind, probes):
    with pytest.raises(UsageError, match="2 or more probes"):
        kind(probes=probes)
