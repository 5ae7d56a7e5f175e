"""What every attack must do."""

from collections.abc import Callable

import numpy as np

from minutia.checks.models import check_model
from minutia.checks.plugins import SHARED_RULES
from minutia.checks.subjects import Raid, contents, must, state
from minutia.core.probe import numbered


def the_original_is_untouched(raid: Raid) -> None:
    """Model in, new model out: neither the victim nor the thief's data is changed."""
    before = state(raid.bench.owner), contents(raid.bench.thief)
    made = raid.apply(0)
    after = state(raid.bench.owner), contents(raid.bench.thief)
    must(before == after, raid.attack, "must leave the victim and the data as they are: use ``model.rebuilt``")
    must(made is not raid.bench.owner, raid.attack, "must return a new model, got the victim itself")


def the_copy_differs(raid: Raid) -> None:
    """An attack that changes nothing is not a test."""
    same = state(raid.copy)[0] == state(raid.bench.owner)[0]
    must(not same, raid.attack, "must change the model, got the same weights and answers")


def the_copy_answers_alike(raid: Raid) -> None:
    """The copy takes the same inputs and names the same classes; only a server may keep its scores to itself."""
    probes = numbered(raid.bench.thief.inputs[:8], {})
    before, after = (m.ask(probes).scores for m in (raid.bench.owner, raid.copy))
    silent = after is None and raid.attack.serving
    fine = before is None or silent or (after is not None and after.shape == before.shape)
    must(fine, raid.attack, "must give a model of the same inputs and classes")


def a_server_is_a_model(raid: Raid) -> None:
    """What is served answers like any model: the same in every order and batch, and what ``access`` says."""
    if raid.attack.serving:
        check_model(raid.copy, numbered(raid.bench.thief.inputs[:24], {}))


def the_card_tells_its_origin(raid: Raid) -> None:
    """A copy descends from its victim: the same root, the victim as its only parent, an id of its own."""
    card, victim = raid.copy.card, raid.bench.owner.card
    fine = card.parents == (victim.id,) and card.root == victim.root and card.id != victim.id
    must(fine, raid.attack, f"must keep the root {victim.root[:19]} and name the parent {victim.id[:19]}, got {card}")


def the_same_seed_gives_the_same_copy(raid: Raid) -> None:
    """The generator fixes the result: there is no other randomness."""
    fine = raid.apply(0).card.id == raid.copy.card.id and state(raid.apply(0))[0] == state(raid.copy)[0]
    must(fine, raid.attack, "must use no randomness but ``rng``: seed 0 gave two copies")


def another_seed_gives_another_copy(raid: Raid) -> None:
    """Nine equal copies are one control, not nine; an attack that never draws from the generator is exempt."""
    rng = np.random.default_rng(0)
    before = str(rng.bit_generator.state)
    raid.attack.apply(raid.bench.owner, raid.bench.thief, rng)
    if str(rng.bit_generator.state) != before:
        must(raid.apply(1).card.id != raid.copy.card.id, raid.attack, "must give another copy for another seed")


# --- models


ATTACK_RULES: tuple[Callable[[Raid], None], ...] = (
    *SHARED_RULES,
    the_original_is_untouched,
    the_copy_differs,
    the_copy_answers_alike,
    a_server_is_a_model,
    the_card_tells_its_origin,
    the_same_seed_gives_the_same_copy,
    another_seed_gives_another_copy,
)
