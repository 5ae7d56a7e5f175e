"""What every attack shares: presets, chains, and a card that says what it cost."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from minutia import catalog
from minutia.attacks.compress import Noise, Prune
from minutia.core.access import Access
from minutia.core.attack import Attack, Chain, chained, destroyed, parts
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.models.toy import ToyClassifier

INPUTS = np.random.default_rng(0).random((40, 6), dtype=np.float32)
VICTIM = ToyClassifier.fresh((6, 8, 3), seed=1)
LABELS = VICTIM.ask(numbered(INPUTS, {})).labels
THIEF = Material(INPUTS[:20], LABELS[:20], held_out=(INPUTS[20:], LABELS[20:]))


def rng(seed=0):
    return np.random.default_rng(seed)


@dataclass(frozen=True)
class Counted(Attack):
    """Hands the victim back under a new card that says how much work it was."""

    name = "counted"
    kind = "counted"
    needs = Access.LABELS
    source = "written by hand"
    presets: ClassVar = {"much": {"steps": 50}}
    steps: int = 5

    def run(self, model, material, rng):
        made = ToyClassifier(dict(model.tensors()))
        made.card = replace(made.card, fidelity={"steps": float(self.steps), "inputs": 20.0})
        return made


@dataclass(frozen=True)
class Veil(Attack):
    """Changes answers only."""

    name = "veil"
    kind = "veil"
    needs = Access.LABELS
    serving = True

    def run(self, model, material, rng):
        return ToyClassifier(dict(model.tensors()))


def test_a_preset_is_a_set_of_parameters_that_others_override():
    assert Counted.from_key("counted/much") == Counted(steps=50)
    assert Counted.from_key("counted/much(steps=7)") == Counted(steps=7)
    assert Counted.from_key("counted/much").key == "counted(steps=50)"


def test_unknown_presets_and_parameters_name_the_nearest():
    with pytest.raises(UsageError, match=r"preset of counted \(much\), got 'mucn': did you mean much\?"):
        Counted.from_key("counted/mucn")
    with pytest.raises(UsageError, match=r"did you mean steps\?"):
        Counted.from_key("counted(step=1)")
    with pytest.raises(UsageError, match="did you mean prune"):
        catalog.attack("noise+prun")


def test_the_card_tells_parent_attack_and_cost():
    made = Noise(strength=0.5).apply(VICTIM, THIEF, rng())
    card = made.card
    assert (card.root, card.parents, card.recipe) == (VICTIM.card.root, (VICTIM.card.id,), "noise(strength=0.5)")
    assert card.id != VICTIM.card.id
    cost = card.fidelity
    assert cost["accuracy_before"] == 1.0  # the labels are the victim's own answers
    assert cost["accuracy_lost"] == pytest.approx(1.0 - cost["accuracy"])
    assert cost["agreement"] == cost["accuracy"] and cost["answered"] == 1.0
    assert cost["chance"] == np.bincount(LABELS[20:]).max() / 20
    weights = sum(w.size for _, w in VICTIM.tensors() if w.ndim > 1) / sum(w.size for _, w in VICTIM.tensors())
    assert cost["weights_changed"] == pytest.approx(weights)
    assert cost["weight_distance"] > 0 and cost["seconds"] >= 0


def test_an_attack_that_changes_nothing_says_so():
    cost = Noise(strength=0.0).apply(VICTIM, THIEF, rng()).card.fidelity
    assert cost["weights_changed"] == 0 and cost["weight_distance"] == 0
    assert cost["accuracy_lost"] == 0 and cost["agreement"] == 1


def test_what_is_not_measured_is_absent():
    cost = Noise().apply(VICTIM, replace(THIEF, held_out=None), rng()).card.fidelity
    assert not {"accuracy", "accuracy_lost", "agreement", "chance"} & set(cost)


def test_effort_is_the_attacks_own_and_never_the_parents():
    once = Counted().apply(VICTIM, THIEF, rng())
    assert (once.card.fidelity["steps"], once.card.fidelity["inputs"]) == (5, 20)
    again = Noise().apply(once, THIEF, rng())
    assert "steps" not in again.card.fidelity


def test_a_chain_applies_its_steps_in_order_and_adds_up_their_effort():
    chain = Chain((Counted(), Noise(strength=0.3), Counted(steps=7)))
    made = chain.apply(VICTIM, THIEF, rng())
    by_hand = Noise(strength=0.3).run(VICTIM, THIEF, rng())
    assert made.card.id == by_hand.card.id
    assert made.card.fidelity["steps"] == 12 and made.card.fidelity["inputs"] == 40
    assert made.card.parents == (VICTIM.card.id,) and made.card.recipe == chain.key
    assert chain.kind == "counted+noise+counted" and chain.keeps_weights and not chain.serving


def test_chains_are_written_with_a_plus_and_come_back():
    chain = catalog.attack("prune(fraction=5e-1,spread=0)+noise(strength=1e+0)")
    assert isinstance(chain, Chain) and chain.steps == (Prune(fraction=0.5, spread=0.0), Noise(strength=1.0))
    assert catalog.attack(chain.key) == chain


def test_a_chain_falls_into_what_changes_weights_and_what_changes_answers():
    assert parts(Noise()) == (Noise(), None) and parts(Veil()) == (None, Veil())
    assert parts(Chain((Noise(), Veil()))) == (Noise(), Veil())
    both = Chain((Noise(), Counted(), Veil(), Veil()))
    assert parts(both) == (Chain((Noise(), Counted())), Chain((Veil(), Veil())))
    assert chained([]) is None


@pytest.mark.parametrize("steps", [(), (Noise(),), (Veil(), Noise()), (Chain((Noise(), Noise())), Noise())])
def test_what_is_no_chain_is_refused(steps):
    with pytest.raises(UsageError, match="expected"):
        Chain(steps)


@pytest.mark.parametrize(
    ("after", "gone"), [(0.05, True), (0.1, True), (0.29, True), (0.31, False), (0.9, False), (None, False)]
)
def test_destroyed_is_less_than_a_quarter_of_the_lead_over_guessing(after, gone):
    measured = {"accuracy_before": 0.9, "chance": 0.1} | ({} if after is None else {"accuracy": after})
    assert destroyed(measured) == gone


def test_labels_of_another_label_space_are_not_compared():
    @dataclass(frozen=True)
    class Other(Counted):
        def run(self, model, material, rng):
            return ToyClassifier.fresh((6, 4, 2), seed=2)

    cost = Other().apply(VICTIM, THIEF, rng()).card.fidelity
    assert "accuracy" not in cost and "agreement" not in cost and cost["answered"] == 1.0


def test_a_card_that_was_handed_through_is_no_effort():
    @dataclass(frozen=True)
    class Lazy(Counted):
        def run(self, model, material, rng):
            return model

    victim = ToyClassifier.fresh((6, 4, 2), seed=2)
    victim.card = ModelCard(victim.card.id, "root", fidelity={"steps": 99.0})
    assert "steps" not in Lazy().apply(victim, replace(THIEF, held_out=None), rng()).card.fidelity
