"""Half precision, and the presets of attacks without data; their definitions are in test_attacks."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minutia import catalog
from minutia.attacks.compress import Half, Prune, Quantise
from minutia.checks import check_attack, toy_bench
from minutia.core.attack import Chain
from minutia.core.errors import UsageError

BENCH = toy_bench()
tensors = hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e5, 1e5, width=32))


def rng(seed=0):
    return np.random.default_rng(seed)


# --- half precision


@pytest.mark.parametrize("attack", [Half(), Half(format="bfloat16")], ids=lambda a: a.format)
def test_it_keeps_the_contract(attack):
    check_attack(attack)


def test_numbers_known_from_the_formats():
    values = np.array([1 / 3, 2049.0, 1e-8, 70000.0, -1e39])
    found = Half().change(values).astype(float)
    np.testing.assert_array_equal(found, [0.333251953125, 2048.0, 0.0, 65504.0, -65504.0])
    found = Half(format="bfloat16").change(values).astype(float)
    np.testing.assert_array_equal(found[:2], [0.333984375, 2048.0])
    assert found[4] == -float(ml_dtypes.finfo("bfloat16").max)


@given(tensors, st.sampled_from(["float16", "bfloat16"]))
def test_what_has_been_rounded_stays(tensor, name):
    once = Half(format=name).change(tensor).astype(np.float32)
    np.testing.assert_array_equal(Half(format=name).change(once).astype(np.float32), once)
    small = np.abs(tensor) <= 65504
    step = 2.0 ** (-11 if name == "float16" else -8)
    assert (np.abs(once - tensor)[small] <= step * np.abs(tensor[small]) + 6e-8).all()


def test_every_tensor_is_rounded_vectors_too():
    copy = Half().apply(BENCH.owner, BENCH.thief, rng())
    for (name, before), (_, after) in zip(BENCH.owner.tensors(), copy.tensors(), strict=True):
        assert after.dtype == np.float32 and not np.array_equal(before, after), name
        np.testing.assert_array_equal(after, before.astype(np.float16).astype(np.float32))
    assert copy.card.fidelity["agreement"] == 1


def test_another_format_is_refused():
    with pytest.raises(UsageError, match="expected format float16 or bfloat16, got 'float8'"):
        Half.from_key("half(format=float8)")


# --- presets


@pytest.mark.parametrize(
    ("preset", "fraction"),
    [
        ("wrt", 0.5),
        ("deepjudge", 0.6),
        ("modeldiff-20", 0.2),
        ("modeldiff-80", 0.8),
        ("ipguard-10", 0.1),
        ("ipguard-90", 0.9),
    ],
)
def test_presets_prune_exactly_what_the_paper_says(preset, fraction):
    copy = Prune.from_key(f"prune/{preset}").apply(BENCH.owner, BENCH.thief, rng())
    for name, after in copy.tensors():
        assert after.ndim < 2 or np.mean(after == 0) == pytest.approx(fraction, abs=0.02), name


@pytest.mark.parametrize(("preset", "bits"), [("wrt", 5), ("int8", 8), ("int4", 4)])
def test_presets_quantise_to_the_bits_they_name(preset, bits):
    copy = Quantise.from_key(f"quantise/{preset}").apply(BENCH.owner, BENCH.thief, rng())
    assert all(after.ndim < 2 or len(np.unique(after)) <= 2**bits for _, after in copy.tensors())
    assert Quantise.from_key(f"quantise/{preset}") == Quantise(bits=bits)


def test_every_preset_of_every_attack_here_can_be_built():
    for cls in (Prune, Quantise):
        for preset in cls.presets:
            assert isinstance(cls.from_key(f"{cls.name}/{preset}"), cls)


def test_the_papers_quantisation_goes_on_with_an_epoch_of_training():
    attack = catalog.attack("quantise/wrt+fine_tune_all(epochs=1)")
    assert isinstance(attack, Chain) and [type(step).__name__ for step in attack.steps] == ["Quantise", "FineTuneAll"]
    copy = attack.apply(BENCH.owner, BENCH.thief, rng())
    assert copy.card.parents == (BENCH.owner.card.id,) and copy.card.fidelity["steps"] == 3
