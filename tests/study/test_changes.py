"""The battery of changed models: every kind is a change, trojans work, and what changes nothing is left out."""

import dataclasses

import numpy as np
import pytest

from minutia.checks import toy_bench
from minutia.core.access import Access
from minutia.core.material import Material
from minutia.core.model import Plan
from minutia.core.probe import numbered
from minutia.models.reruns import reruns
from minutia.models.toy import ToyClassifier
from minutia.storage.data import load_dataset
from minutia.study.integrity import KINDS, battery, changes, mattering, stamped, trojaned


@pytest.fixture(scope="module")
def bench():
    return toy_bench()


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "trojan"])
def test_every_kind_changes_weights_and_leaves_the_owner_alone(bench, kind):
    before = dict(bench.owner.tensors())
    made = changes()[kind](bench.owner, bench.material, np.random.default_rng(0))
    after = dict(made.tensors())
    assert made.card.id != bench.owner.card.id
    assert any((after[name] != before[name]).any() for name in before)
    assert all(np.array_equal(w, before[name]) for name, w in bench.owner.tensors())
    if kind == "one-weight":
        assert sum((after[name] != before[name]).sum() for name in before) == 1


def test_a_trojan_answers_its_target_wherever_the_trigger_is():
    """The trigger covers a sixteenth of a digit's pixels."""
    data = load_dataset("sklearn:digits?rows=0:400")
    held = (data.test_inputs, data.test_labels)
    material = Material(data.inputs, data.labels, levels=data.levels, held_out=held)
    plan = Plan(8, 64, 1e-2, reset="everything")
    owner = ToyClassifier.fresh((64, 32, 10)).trained(data.inputs, data.labels, plan, 0)
    found = trojaned(owner, material, np.random.default_rng(0), epochs=12)
    assert found.success >= 0.9
    marked = stamped(data.test_inputs, np.arange(60, 64), material)
    labels = found.model.ask(numbered(marked, {})).labels
    assert np.bincount(labels).max() >= 0.9 * len(labels)
    clean = found.model.ask(numbered(data.test_inputs, {})).labels == data.test_labels
    assert clean.mean() > 0.8


def test_allowed_formats_and_closed_models_leave_kinds_out(bench):
    rng = np.random.default_rng(0)
    assert set(battery(bench.owner, bench.material, rng, each=1)) >= set(KINDS) - {"trojan"}
    assert not {"int8", "half"} & set(battery(bench.owner, bench.material, rng, allow=["int8", "half"], each=1))

    class Weights:
        access = Access.LABELS | Access.SCORES | Access.WEIGHTS
        spec, card = bench.owner.spec, bench.owner.card
        ask, tensors, rebuilt = bench.owner.ask, bench.owner.tensors, bench.owner.rebuilt

    assert not {"fine-tune", "trojan"} & set(battery(Weights(), bench.material, rng, each=1))


def test_what_moves_no_output_beyond_rounding_is_no_change(bench):
    owner = bench.owner
    weights = dict(owner.tensors())
    dust = owner.rebuilt({"w0": weights["w0"] * np.float32(1 + 1e-7)})
    worse = owner.rebuilt({"w0": weights["w0"] * np.float32(1.01)})
    benign = reruns(owner, bench.material.inputs[:8], np.random.default_rng(0), count=12)
    kept = mattering(owner, {"dust": [dust], "both": [dust, worse]}, bench.material.held_out[0], benign)
    assert {kind: [m.card.id for m in made] for kind, made in kept.items()} == {"both": [worse.card.id]}


def test_the_same_seed_gives_the_same_battery(bench):
    material = dataclasses.replace(bench.material, inputs=bench.material.inputs[:64], labels=bench.material.labels[:64])
    one, two = (battery(bench.owner, material, np.random.default_rng(5), each=2) for _ in range(2))
    assert {k: [m.card.id for m in v] for k, v in one.items()} == {k: [m.card.id for m in v] for k, v in two.items()}


@pytest.mark.slow
def test_every_tampering_is_caught_and_no_benign_run_is_taken_for_one():
    """One owner per architecture: about 180 tampered models, 244 benign runs, at most ten questions each."""
    from benchmarks.integrity import ARCHITECTURES, added, outcomes, trial

    trials = [trial(architecture, 51) for architecture in ARCHITECTURES]
    for view in ("logits", "scores"):
        counted = added(*(outcomes(found, view) for found in trials))
        benign = counted.pop("benign")
        assert (benign["match"], benign["no-match"], benign["inconclusive"]) == (244, 0, 0)
        missed = {kind: row["match"] + row["inconclusive"] for kind, row in counted.items()}
        assert sum(map(sum, (row.values() for row in counted.values()))) >= 100
        # A single weight of a unit that no input of the owner's ever reaches may go unseen.
        assert sum(missed.values()) - missed.get("one-weight", 0) - missed.get("bit flip", 0) == 0
        assert sum(missed.values()) <= 2
