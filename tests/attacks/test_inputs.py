"""Query-time defences that change inputs: what each does to a picture, and votes over noisy copies."""

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minutia import catalog
from minutia.attacks.inputs import LUMINANCE, CompressInputs, SmoothInputs, voted
from minutia.attacks.outputs import Refuse
from minutia.checks import check_attack, toy_bench
from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.probe import numbered
from minutia.models.metered import Metered
from minutia.models.toy import ToyClassifier

BENCH = toy_bench()
TOY = BENCH.owner
THIEF = BENCH.thief
UNIT = (0.0, 1.0)
PROBES = numbered(np.random.default_rng(5).random((150, 1, 4, 4), dtype=np.float32), {})
INPUTS = (
    CompressInputs(quality=20),
    SmoothInputs(),
    SmoothInputs(votes=5),
    SmoothInputs(how="blur", strength=0.7),
    SmoothInputs(how="mean", strength=3),
    SmoothInputs(how="median", strength=3),
    SmoothInputs(how="bits", strength=2),
    SmoothInputs(how="flip"),
)
every_attack = pytest.mark.parametrize("attack", INPUTS, ids=lambda a: a.key)
pictures = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 19), st.integers(1, 19)),
    elements=st.floats(0, 1, width=32),
)


def rng(seed=0):
    return np.random.default_rng(seed)


def photo(count=1, side=32, seed=0):
    """Smooth pictures with some grain: most of their energy is in low frequencies, as in nature."""
    x = np.linspace(0, 3, side)
    waves = [np.sin(a * x[:, None] + b) * np.cos(b * x + a) for a, b in rng(seed).uniform(0, 3, (count, 2))]
    return np.clip(0.5 + 0.3 * np.array(waves)[:, None] + rng(seed).normal(0, 0.02, (count, 1, side, side)), 0, 1)


def grey(images):
    return np.round(np.asarray(images, float) * 255)


# --- laws of all


@every_attack
def test_the_contract_holds(attack):
    check_attack(attack, BENCH)
    assert attack.serving and catalog.attack(attack.key) == attack


@every_attack
def test_an_answer_depends_on_the_probe_alone(attack):
    served = attack.apply(TOY, THIEF, rng())
    whole = served.ask(PROBES)
    turned = rng(1).permutation(len(PROBES))
    for part in (turned, *np.array_split(turned, 4), *([row] for row in turned[:15])):
        some = served.ask(PROBES.take(part))
        np.testing.assert_array_equal(some.labels, whole.labels[part])
        np.testing.assert_allclose(some.scores, whole.scores[part], rtol=1e-4, atol=1e-5)
    again = pickle.loads(pickle.dumps(served)).ask(PROBES)
    np.testing.assert_array_equal(again.scores, whole.scores)


@every_attack
def test_only_noise_changes_with_the_repeat_and_with_the_seed(attack):
    drawn = attack.how == "noise" if isinstance(attack, SmoothInputs) else False
    first = attack.apply(TOY, THIEF, rng()).ask(PROBES)
    repeated = attack.apply(TOY, THIEF, rng()).ask(replace(PROBES, repeat=1))
    other = attack.apply(TOY, THIEF, rng(1)).ask(PROBES)
    for found in (repeated, other):
        assert np.array_equal(found.scores, first.scores) != drawn


@every_attack
def test_answers_are_those_of_the_model_to_what_it_sees_and_nothing_is_written_into_the_probes(attack):
    before = PROBES.array.copy()
    served = attack.apply(TOY, THIEF, rng()).ask(PROBES)
    np.testing.assert_array_equal(PROBES.array, before)
    assert 0.1 < np.mean(served.labels == TOY.ask(PROBES).labels) < 1
    quiet = attack.apply(Metered(TOY, only=Access.LABELS, batch=10**6), THIEF, rng())
    assert quiet.access == Access.LABELS
    np.testing.assert_array_equal(quiet.ask(PROBES).labels, served.labels)


@every_attack
def test_where_the_model_has_no_answer_there_is_none(attack):
    mute = Refuse(share=0.999).apply(TOY, THIEF, rng())
    answers = attack.apply(mute, THIEF, rng()).ask(PROBES)
    assert np.mean(answers.status == Status.REFUSED) > 0.5
    np.testing.assert_array_equal(answers.labels == -1, answers.status == Status.REFUSED)


# --- compression


def test_the_steps_are_those_of_the_standard():
    np.testing.assert_array_equal(CompressInputs(quality=50).steps(), LUMINANCE)
    assert (CompressInputs(quality=100).steps() == 1).all()
    assert (CompressInputs(quality=1).steps() == 255).all()
    assert CompressInputs(quality=75).steps()[0, :4].tolist() == [8, 6, 5, 8]


@given(pictures)
def test_the_best_quality_is_nearly_the_identity(images):
    found = CompressInputs(quality=100).compressed(images, UNIT)
    # Coefficients move by half a step, 64 of them at most in a block; pixels by that in the mean square, and rounding.
    assert np.sqrt(np.mean((grey(found) - grey(images)) ** 2)) <= 1.0
    assert found.shape == images.shape and found.dtype == np.float32


@given(pictures, st.integers(1, 100))
def test_compressed_pictures_are_grey_levels_within_bounds(images, quality):
    images = (grey(images) / 255).astype(np.float32)  # between two levels float noise decides
    found = CompressInputs(quality=quality).compressed(images, UNIT)
    np.testing.assert_allclose(found * 255, grey(found), atol=1e-3)
    assert found.min() >= 0 and found.max() <= 1
    moved = CompressInputs(quality=quality).compressed(images * 4 - 2, (-2.0, 2.0))
    np.testing.assert_allclose(moved, found * 4 - 2, atol=1e-5)


def test_low_quality_costs_more_and_detail_goes_first():
    images = photo(8)
    errors = [
        np.mean((CompressInputs(quality=q).compressed(images, UNIT) - images) ** 2) for q in (100, 95, 65, 45, 10, 1)
    ]
    assert errors == sorted(errors) and errors[-1] > 20 * errors[0]
    board = np.indices((8, 8)).sum(axis=0)[None, None] % 2 * 0.1 + 0.45
    flat = CompressInputs(quality=20).compressed(board, UNIT)
    assert np.ptp(flat) == 0 and flat.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("quality", [95, 65, 45, 10])
def test_a_picture_looks_as_a_jpeg_library_leaves_it(quality):
    image = pytest.importorskip("PIL.Image")
    for picture in grey(photo(4, side=40))[:, 0].astype(np.uint8):
        file = io.BytesIO()
        image.fromarray(picture).save(file, format="JPEG", quality=quality)
        expected = np.asarray(image.open(file), float)
        found = grey(CompressInputs(quality=quality).compressed(picture[None, None] / np.float32(255), UNIT))[0, 0]
        # The library calculates in whole numbers, so that a coefficient in a hundred falls to the other side.
        apart, change = (np.mean(np.abs(one - expected)) for one in (found, picture.astype(float)))
        assert apart < 0.6 and apart < 0.4 * change


def test_ties_are_not_decided_by_the_batch():
    # A block of whole numbers whose mean coefficient lies exactly between two steps.
    block = np.full((1, 1, 8, 8), 128, np.float32)
    block[0, 0, 0, :] += 8.0  # sum 64, coefficient 8 of steps of 16
    many = np.concatenate([block / 255] * 37 + [photo(3, side=8).astype(np.float32)])
    attack = CompressInputs(quality=50)
    whole = attack.compressed(many, UNIT)
    assert (whole[:37] == whole[0]).all()
    np.testing.assert_array_equal(attack.compressed(many[3:4], UNIT)[0], whole[3])


# --- smoothing


def test_noise_has_its_strength_in_units_of_the_range_and_stays_in_it():
    inputs, bounds = np.zeros((3000, 5), np.float32), (-2.0, 2.0)
    attack = SmoothInputs(strength=0.1)
    setup = attack.setup(TOY, replace(THIEF, bounds=bounds), rng())
    found = attack.noisy(inputs, setup.generators(numbered(np.arange(15000.0).reshape(3000, 5), {})), bounds)
    assert found.std() == pytest.approx(0.4, rel=0.03) and abs(found.mean()) < 0.02
    wide = SmoothInputs(strength=9.0).noisy(inputs, setup.generators(numbered(inputs + 1, {})), bounds)
    assert wide.min() == -2 and wide.max() == 2


def test_votes_take_the_noise_out_again():
    inputs = BENCH.material.inputs
    true = TOY.ask(numbered(inputs, {})).labels
    kept = [
        np.mean(SmoothInputs(strength=0.2, votes=n).apply(TOY, THIEF, rng()).ask(numbered(inputs, {})).labels == true)
        for n in (1, 25)
    ]
    assert kept[1] > kept[0] + 0.02
    answers = SmoothInputs(strength=0.2, votes=25).apply(TOY, THIEF, rng()).ask(numbered(inputs, {}))
    np.testing.assert_allclose(answers.scores * 25, np.round(answers.scores * 25), atol=1e-4)
    np.testing.assert_allclose(answers.scores.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(answers.labels, answers.scores.argmax(axis=1))
    assert answers.logits is None


def test_the_majority_wins_the_first_class_a_tie_and_silence_has_no_vote():
    rounds = [
        Answers.from_labels(np.array(labels))
        for labels in ([1, 2, -1, -1], [0, 2, -1, 3], [1, 1, -1, -1], [0, 0, -1, -1])
    ]
    found = voted(rounds)
    assert found.labels.tolist() == [0, 2, -1, 3]
    assert found.status.tolist() == [Status.OK, Status.OK, Status.INVALID, Status.OK]


def test_ways_to_smooth_are_what_they_are_called():
    spot = np.zeros((1, 1, 7, 7), np.float32)
    spot[0, 0, 3, 2] = 0.9
    mean = SmoothInputs(how="mean", strength=3).changed(spot, UNIT)[0, 0]
    np.testing.assert_allclose(mean[2:5, 1:4], 0.1, atol=1e-6)
    assert mean.sum() == pytest.approx(0.9)
    assert SmoothInputs(how="median", strength=3).changed(spot, UNIT).max() == 0
    blur = SmoothInputs(how="blur", strength=1.0).changed(spot, UNIT)[0, 0]
    assert blur.argmax() == 3 * 7 + 2 and blur.max() == pytest.approx(0.9 * 0.3989**2, rel=0.02)
    assert SmoothInputs(how="flip").changed(spot, UNIT)[0, 0, 3, 4] == np.float32(0.9)
    two = SmoothInputs(how="bits", strength=2).changed(np.array([[0.1, 0.2, 0.6, 1.0]]), UNIT)
    np.testing.assert_allclose(two, [[0, 1 / 3, 2 / 3, 1]], atol=1e-6)


@given(pictures, st.sampled_from(["blur", "mean", "median", "bits", "flip"]))
def test_smoothing_keeps_shape_bounds_and_what_is_even(images, how):
    attack = SmoothInputs(how=how, strength=3)
    found = attack.changed(images, UNIT)
    assert found.shape == images.shape and found.dtype == np.float32
    assert found.min() >= images.min() - 0.08 and found.max() <= images.max() + 0.08  # 3 bits move by 1/14
    even = attack.changed(np.full_like(images, 3 / 7), UNIT)
    np.testing.assert_allclose(even, 3 / 7, atol=1e-5)


def test_channels_and_pictures_do_not_mix():
    images = np.zeros((2, 2, 8, 8), np.float32)
    images[1, 0] = 1
    for attack in (SmoothInputs(how="blur", strength=2.0), SmoothInputs(how="median", strength=3)):
        np.testing.assert_allclose(attack.changed(images, UNIT), images, atol=1e-6)
    np.testing.assert_allclose(CompressInputs(quality=90).compressed(images, UNIT), images, atol=0.02)


def test_tokens_are_exchanged_at_the_rate_for_others_of_the_vocabulary():
    texts = np.full((500, 20), 7, np.float32)
    material = Material(texts, np.arange(500) % 2, bounds=(0.0, 49.0), content="text")
    attack = SmoothInputs(strength=0.3)
    setup = attack.setup(TOY, material, rng())
    assert setup.arrays["tokens"]
    draws = setup.generators(numbered(np.arange(10000.0).reshape(500, 20), {}))
    found = attack.exchanged(texts, draws, (0.0, 49.0))
    assert np.array_equal(found, np.round(found)) and found.min() == 0 and found.max() == 49
    expected = 0.3 * 49 / 50  # one exchange in fifty brings the same token back
    assert abs(np.mean(found != 7) - expected) <= 4 * np.sqrt(expected * (1 - expected) / 10000)
    model = ToyClassifier.fresh((20, 8, 2), seed=1)
    served = attack.apply(model, material, rng())
    probes = numbered(rng(2).integers(0, 50, (40, 20)).astype(np.float32), {})
    assert 0 < np.sum(served.ask(probes).labels != model.ask(probes).labels) < 40


# --- refusals and other models


@pytest.mark.parametrize(
    "key",
    [
        "compress_inputs(quality=0)",
        "compress_inputs(quality=101)",
        "smooth_inputs(how=melt)",
        "smooth_inputs(strength=-0.1)",
        "smooth_inputs(strength=inf)",
        "smooth_inputs(how=blur,strength=0)",
        "smooth_inputs(how=mean,strength=2)",
        "smooth_inputs(how=median,strength=1)",
        "smooth_inputs(how=median)",
        "smooth_inputs(how=bits)",
        "smooth_inputs(how=bits,strength=20)",
        "smooth_inputs(votes=0)",
        "smooth_inputs(how=flip,votes=3)",
    ],
)
def test_parameters_that_cannot_work_are_refused(key):
    with pytest.raises(UsageError, match="expected"):
        catalog.attack(key)


@pytest.mark.parametrize("attack", [INPUTS[0], *INPUTS[3:6], INPUTS[7]], ids=lambda a: a.key)
def test_rows_of_numbers_are_no_pictures(attack):
    flat = Material(THIEF.inputs.reshape(-1, 16), THIEF.labels)
    for material in (flat, replace(THIEF, content="tabular")):
        with pytest.raises(UsageError, match=r"expected images of shape .* got"):
            attack.apply(TOY, material, rng())
    with pytest.raises(UsageError, match="got image of shape"):
        attack.apply(TOY, THIEF, rng()).ask(numbered(flat.inputs, {}))


def test_fewer_bits_are_for_numbers():
    with pytest.raises(UsageError, match="got text"):
        SmoothInputs(how="bits", strength=4).apply(TOY, replace(THIEF, content="text"), rng())
    assert SmoothInputs(how="bits", strength=4).apply(TOY, replace(THIEF, content="tabular"), rng()).ask(PROBES)


def test_the_presets_are_those_of_the_paper():
    for preset, value in (("wrt", 95), ("wrt-65", 65), ("wrt-45", 45)):
        assert catalog.attack(f"compress_inputs/{preset}") == CompressInputs(quality=value)
    assert catalog.attack("smooth_inputs/wrt-median") == SmoothInputs(how="median", strength=3.0)
    for preset in SmoothInputs.presets:
        assert catalog.attack(f"smooth_inputs/{preset}").apply(TOY, THIEF, rng()).ask(PROBES.take([0])).labels[0] >= 0


def test_torch_models_are_served_behind_a_chain():
    torch = pytest.importorskip("torch")
    from minutia.models.torch import TorchModel

    torch.manual_seed(0)
    victim = TorchModel(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5))
    )
    served = catalog.attack("compress_inputs+smooth_inputs(votes=3)+round_scores").apply(victim, THIEF, rng())
    answers = served.ask(PROBES)
    assert answers.scores.shape == (150, 5) and served.access == Access.LABELS | Access.TOP_K | Access.SCORES
    assert served.card.parents == (victim.card.id,) and served.card.root == victim.card.root
