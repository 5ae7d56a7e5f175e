"""False claims: who accuses innocents, by which rule, and which rule protects them."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from minutia import catalog
from minutia.attacks.false_claim import PostHoc, Transferable
from minutia.checks import toy_bench
from minutia.core.access import Access
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.core.method import looks_for
from minutia.core.model import Plan
from minutia.core.probe import numbered
from minutia.methods.classifiers.ipguard import IPGuard
from minutia.models.metered import Metered
from minutia.models.toy import ToyClassifier
from minutia.stats.nulls import type_one_bound
from minutia.storage.files import load_fingerprint, save_fingerprint

BENCH = toy_bench()
ACCUSER = BENCH.owner
METHOD = IPGuard()
PUBLISHED = 0.75
"""A match rate that published code takes for proof (Lukas et al., ICLR 2021, arXiv 1912.00888)."""


def rng(seed=0):
    return np.random.default_rng(seed)


def trained(seed):
    """One more innocent of the accuser's own recipe."""
    plan = Plan(8, batch_size=32, learning_rate=1e-2, reset="everything")
    return ToyClassifier.fresh((16, 12, 5)).trained(BENCH.material.inputs, BENCH.material.labels, plan, seed)


@lru_cache
def innocents():
    """240 models of which nobody has heard before the probes were chosen."""
    return tuple(trained(seed) for seed in range(10_000, 10_240))


@lru_cache
def material():
    """The accuser's data, with twelve surrogates of his own."""
    return replace(BENCH.material, unrelated=[trained(seed) for seed in range(2000, 2012)])


def forged(claim, accused=None, seed=0):
    return claim.apply(ACCUSER, material(), METHOD, rng(seed), accused=accused)


def null_of(fp, models):
    return Null("unrelated", tuple(METHOD.observe(fp, m) for m in models), source="the judge's own")


CLAIMS = (Transferable(), Transferable(target="random", probes=60), PostHoc(), PostHoc(probes=40, pool=2000))
every_claim = pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.key)


# --- laws of all


@every_claim
def test_a_forged_fingerprint_is_one_like_any_other(claim, tmp_path):
    fp = forged(claim, innocents()[0])
    assert fp.method == METHOD.key and len(fp.probes) == claim.probes and fp.schedule == looks_for(claim.probes)
    np.testing.assert_array_equal(fp.answers.labels, ACCUSER.ask(fp.probes).labels)
    np.testing.assert_array_equal(material().stored(fp.probes.array), fp.probes.array)
    assert len(np.unique(fp.probes.array, axis=0)) == claim.probes
    save_fingerprint(fp, tmp_path / "forged")
    read = load_fingerprint(tmp_path / "forged")
    assert read.digest == fp.digest
    verdict = METHOD.verify(read, innocents()[1], null_of(read, innocents()[2:21]), alpha=0.05)
    assert verdict.p_value >= 0.05 and {"unscreened", "no-controls"} <= set(verdict.flags)


@every_claim
def test_the_same_seed_forges_the_same_and_nothing_else_changes(claim):
    before = {n: w.copy() for n, w in ACCUSER.tensors()}
    inputs = material().inputs.copy()
    first, again, other = (forged(claim, innocents()[0], seed) for seed in (0, 0, 1))
    assert first.digest == again.digest and first.probes.digest != other.probes.digest
    assert all(np.array_equal(w, before[n]) for n, w in ACCUSER.tensors())
    np.testing.assert_array_equal(material().inputs, inputs)


@every_claim
def test_keys_come_back(claim):
    assert catalog.claim(claim.key) == claim


@every_claim
def test_extraction_with_the_seed_on_file_makes_other_probes(claim):
    fp = forged(claim, innocents()[0])
    honest = METHOD.extract(ACCUSER, material(), seed=fp.seed)
    assert not {p.content.tobytes() for p in honest.probes} & {p.content.tobytes() for p in fp.probes}


# --- transferable examples


def test_transferable_examples_are_wrong_near_an_input_and_shared():
    claim = Transferable(strength=0.15)
    rows = rng(3).choice(len(material().inputs), 100, replace=False)
    starts, truth = material().inputs[rows], material().labels[rows]
    ensemble = [ACCUSER, *material().unrelated]
    crafted = claim.craft(ensemble, starts, truth, material(), rng())
    assert np.abs(crafted - starts).max() <= 0.15 + 1e-6 and crafted.min() >= 0 and crafted.max() <= 1
    before, after = (
        np.mean([m.ask(numbered(x, {})).labels != truth for m in innocents()[:20]]) for x in (starts, crafted)
    )
    assert after > before + 0.3
    fp = forged(Transferable())
    near = [np.abs(material().inputs - p.content).max(axis=(1, 2, 3)).min() for p in fp.probes]
    assert max(near) <= 0.2 + 1 / 255


@pytest.mark.parametrize("target", ["nearest", "random", "away"])
def test_every_target_makes_most_models_agree_with_the_accuser(target):
    fp = forged(Transferable(probes=40, target=target))
    rates = [METHOD.score(fp, METHOD.observe(fp, m)) for m in innocents()[:40]]
    assert np.mean(rates) > 0.7
    own = METHOD.extract(ACCUSER, material())
    assert np.mean(rates) > 2 * np.mean([METHOD.score(own, METHOD.observe(own, m)) for m in innocents()[:40]])


def test_a_published_threshold_convicts_innocents_and_the_rank_among_the_judges_own_models_does_not():
    fp = forged(Transferable())
    seen = [METHOD.observe(fp, m) for m in innocents()]
    rates = np.array([METHOD.score(fp, o) for o in seen])
    assert np.mean(rates >= PUBLISHED) > 0.9
    null = Null("unrelated", tuple(seen[:99]))
    for alpha in (0.01, 0.05):
        verdicts = [METHOD.judge(fp, o, null, alpha=alpha) for o in seen[99:]]
        bound = type_one_bound(len(verdicts), 99, alpha)
        assert sum(v.p_value <= alpha + 1e-12 for v in verdicts) <= bound
        assert sum(v.outcome == "match" for v in verdicts) <= bound
    early = [METHOD.verify(fp, m, null, alpha=0.05).outcome for m in innocents()[99:]]
    assert early.count("match") <= type_one_bound(len(early), 99, 0.05)


def test_too_weak_a_step_is_an_error_and_not_a_bad_fingerprint():
    with pytest.raises(ModelError, match="expected 100 points that serve transferable, got"):
        forged(Transferable(strength=0.01))


# --- probes chosen by the accused's answers


def test_post_hoc_probes_convict_the_accused_whatever_the_null():
    alpha, judges = 0.05, innocents()[:19]
    accused = innocents()[100:112]
    convicted = 0
    for number, model in enumerate(accused):
        fp = forged(PostHoc(), model, number)
        assert METHOD.score(fp, METHOD.observe(fp, model)) == 1.0
        convicted += METHOD.verify(fp, model, null_of(fp, judges), alpha=alpha).outcome == "match"
    assert convicted >= 10 > type_one_bound(len(accused), len(judges), alpha)


def test_ninety_nine_null_models_do_not_repair_it():
    model = innocents()[150]
    fp = forged(PostHoc(), model)
    assert METHOD.verify(fp, model, null_of(fp, innocents()[:99]), alpha=0.01).outcome == "match"


def test_models_released_after_the_probes_were_fixed_are_safe():
    # The same forgery, but the suspects are others than the one whose answers chose the probes: what a dated
    # commitment guarantees.
    fp = forged(PostHoc(), innocents()[150])
    null, later = null_of(fp, innocents()[:99]), (*innocents()[99:150], *innocents()[151:])
    outcomes = [METHOD.verify(fp, m, null, alpha=0.05).outcome for m in later]
    assert outcomes.count("match") <= type_one_bound(len(later), 99, 0.05)


def test_post_hoc_needs_labels_and_nothing_more():
    quiet = [Metered(m, only=Access.LABELS, batch=10**6) for m in (ACCUSER, innocents()[0])]
    fp = PostHoc(probes=30, pool=400).apply(quiet[0], material(), METHOD, rng(), accused=quiet[1])
    assert fp.answers.scores is None and METHOD.score(fp, METHOD.observe(fp, innocents()[0])) == 1.0


def test_candidates_are_of_all_kinds_and_half_of_the_boundary_is_met():
    points = PostHoc(pool=400).candidates(ACCUSER, material(), rng())
    assert points.shape == (400, 1, 4, 4) and points.dtype == np.float32
    known = {x.tobytes() for x in material().inputs}
    assert [p.tobytes() in known for p in points[:100]] == [True] * 100
    top = np.sort(ACCUSER.ask(numbered(points, {})).scores, axis=1)
    sure = (top[:, -1] - top[:, -2]).reshape(4, 100)
    assert np.mean(sure[3] < 0.1) > 0.5 > np.mean(sure[0] < 0.1)


def test_texts_have_no_points_between_tokens():
    tokens = rng().integers(0, 30, (200, 10)).astype(np.float32)
    labels = (tokens[:, 0] > 14).astype(int)
    plan = Plan(10, learning_rate=1e-2, reset="everything")
    models = [ToyClassifier.fresh((10, 8, 2)).trained(tokens, labels, plan, seed) for seed in range(4)]
    texts = Material(tokens, labels, unrelated=models[1:3], bounds=(0.0, 29.0), levels=30, content="text")
    fp = PostHoc(probes=20, pool=200).apply(models[0], texts, METHOD, rng(), accused=models[3])
    assert np.array_equal(fp.probes.array, np.round(fp.probes.array)) and fp.probes.array.max() <= 29
    with pytest.raises(UsageError, match="got text"):
        Transferable().apply(models[0], texts, METHOD, rng())


# --- refusals and other models


def test_nobody_can_be_framed_without_being_asked():
    with pytest.raises(UsageError, match="expected the accused model for post_hoc, got none"):
        forged(PostHoc())
    assert PostHoc.tailored and not Transferable.tailored


@every_claim
def test_surrogates_and_inputs_are_needed(claim):
    for short, why in (
        (replace(material(), unrelated=()), "besides the accuser's own"),
        (replace(material(), inputs=material().inputs[:0], labels=material().labels[:0]), "expected inputs"),
    ):
        with pytest.raises(UsageError, match=why):
            claim.apply(ACCUSER, short, METHOD, rng(), accused=innocents()[0])


def test_transferable_needs_gradients_of_all_its_models():
    quiet = Metered(ACCUSER, only=Access.LABELS)
    with pytest.raises(UsageError, match="gradients for transferable"):
        Transferable().apply(quiet, material(), METHOD, rng())
    with pytest.raises(UsageError, match="gradients for transferable"):
        Transferable().apply(ACCUSER, replace(material(), unrelated=[quiet]), METHOD, rng())


@pytest.mark.parametrize(
    "key",
    [
        "transferable(target=far)",
        "transferable(steps=0)",
        "transferable(strength=0)",
        "transferable(rate=-1)",
        "post_hoc(probes=0)",
        "post_hoc(pool=3)",
    ],
)
def test_parameters_that_cannot_work_are_refused(key):
    with pytest.raises(UsageError, match="expected"):
        catalog.claim(key)


def test_the_presets_are_those_of_the_public_code():
    claim = catalog.claim("transferable/false-claims")
    assert (claim.probes, claim.steps, claim.rate, claim.target) == (50, 100, 0.03, "away")
    assert claim.strength == pytest.approx(16 / 255)
    assert catalog.claim("transferable/false-claims-targeted(strength=0.3)").target == "random"


def test_torch_models_are_framed_too():
    torch = pytest.importorskip("torch")
    from minutia.models.torch import TorchModel

    torch.manual_seed(0)
    blank = TorchModel(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 12), torch.nn.ReLU(), torch.nn.Linear(12, 5))
    )
    plan = Plan(8, batch_size=32, learning_rate=1e-2, reset="everything")
    models = [blank.trained(material().inputs, material().labels, plan, seed) for seed in range(6)]
    tried = replace(material(), unrelated=models[1:4])
    for claim in (Transferable(probes=30), PostHoc(probes=30, pool=1000)):
        fp = claim.apply(models[0], tried, METHOD, rng(), accused=models[4])
        own, accused = (METHOD.score(fp, METHOD.observe(fp, m)) for m in (models[0], models[4]))
        assert own == 1.0 and accused > 0.6
