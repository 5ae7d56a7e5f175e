"""What every model must do."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from minutia.checks.subjects import ABILITIES, COLUMNS, Asked, must, overwrite, run_rule, same_answers, state
from minutia.core.access import Access
from minutia.core.answers import Status
from minutia.core.errors import MinutiaError
from minutia.core.model import GradientModel, Model, ModelCard, Plan, TrainableModel, WeightModel
from minutia.core.probe import ProbeSet
from minutia.core.units import LayeredModel, permuted


def one_row_per_probe(asked: Asked) -> None:
    """Answers have one row per probe; a row that is OK holds an answer, any other holds no label."""
    answers, model = asked.answers, asked.model
    must(len(answers) == len(asked.probes), model, f"must give {len(asked.probes)} rows, got {len(answers)}")
    fine = answers.labels.dtype == np.int64 and answers.status.dtype == np.uint8
    must(fine, model, f"must use int64 labels and uint8 status, got {answers.labels.dtype}, {answers.status.dtype}")
    named = (answers.labels >= 0) | (answers.text is not None)
    fine = bool(named[answers.status == Status.OK].all())
    must(fine, model, "must answer where it says OK: say INVALID or REFUSED where there is no answer")
    if answers.scores is not None:
        rows = np.flatnonzero(answers.labels >= 0)
        best = answers.scores[rows].max(axis=1) if len(rows) else np.empty(0)
        fine = bool((answers.scores[rows, answers.labels[rows]] >= best - 1e-6).all())
        must(fine, model, "must name the class that it scores highest: use Answers.from_scores")


def the_order_of_rows_is_kept(asked: Asked) -> None:
    """Asked in another order, every probe gets the answer it got before."""
    turned = np.arange(len(asked.probes))[::-1]
    for rows in (turned, turned[:-1]):
        again = asked.model.ask(asked.probes.take(rows))
        same = np.array_equal(again.labels, asked.answers.labels[rows])
        must(same, asked.model, "must answer in the order of the probes")


def batches_do_not_matter(asked: Asked) -> None:
    """Labels do not depend on what else is in the batch: a suspect is asked in other batches than the owner."""
    for parts in (2, len(asked.probes)):
        rows = np.array_split(np.arange(len(asked.probes)), parts)
        labels = np.concatenate([asked.model.ask(asked.probes.take(r)).labels for r in rows])
        same = np.array_equal(labels, asked.answers.labels)
        must(same, asked.model, f"must give the same labels in {parts} batches: switch training mode off")


def an_empty_batch_is_no_crash(asked: Asked) -> None:
    """No probes give no answers, or an error that minutia raises on purpose."""
    try:
        found = len(asked.model.ask(asked.probes.take([])))
    except MinutiaError:
        return
    must(found == 0, asked.model, f"must give no rows for no probes, got {found}")


def access_is_truthful(asked: Asked) -> None:
    """``access`` names what is always there, and all of it: methods negotiate by nothing else."""
    model, answers = asked.model, asked.answers
    if not (answers.status == Status.OK).any():
        return
    for name, needs in COLUMNS.items():
        given = getattr(answers, name) is not None
        message = f"must claim {needs.name} exactly where it returns {name}, got access {model.access} and {given}"
        must(given == bool(needs & model.access), model, message)
    labelled = bool((answers.labels >= 0).any())
    must(labelled == (Access.LABELS in model.access), model, "must claim LABELS exactly where it names classes")
    for needs, (protocol, names) in ABILITIES.items():
        able = needs not in model.access or isinstance(model, protocol)
        must(able, model, f"claims {needs.name} and must then have {', '.join(names)}")


def the_card_names_the_model(asked: Asked) -> None:
    """The card says who the model is: nulls are counted by its root, journals keyed by its id."""
    model, card = asked.model, asked.model.card
    must(bool(model.spec and card.id and card.root), model, "must have a spec and a card with id and root")
    must(card.id not in card.parents, model, "must not be its own parent")
    must(ModelCard.from_plain(card.plain()) == card, model, "must have a card of plain data")


def gradients_are_derivatives(asked: Asked) -> None:
    """The pull-back agrees with differences of the logits, row by row."""
    model = asked.model
    if Access.GRADIENTS not in model.access or not isinstance(model, GradientModel):
        return
    x = np.asarray(asked.probes.array[:16], np.float32)
    logits, pull_back = model.linearise(x)
    same = np.array_equal(logits.argmax(axis=1), asked.answers.labels[: len(x)])
    must(same, model, "must linearise the function that it answers with")
    rng, axes = np.random.default_rng(0), tuple(range(1, x.ndim))
    slope = np.asarray(rng.normal(size=logits.shape), np.float32)
    step, gradient = 5e-3 * (float(np.ptp(x)) or 1.0), pull_back(slope)
    wrong: list[float] = []
    sizes: list[float] = []
    for _ in range(5):
        direction = np.asarray(rng.normal(size=x.shape), np.float32)
        ahead, behind = (model.linearise(x + sign * step * direction)[0] for sign in (1, -1))
        measured = np.sum((ahead - behind) * slope, axis=1) / (2 * step)
        wrong.extend(np.abs(np.sum(gradient * direction, axis=axes) - measured))
        sizes.extend(np.abs(measured))
    # The median, because a difference across a kink is no derivative.
    fine = bool(np.median(wrong) <= 0.05 * np.median(sizes) + 1e-6)
    must(fine, model, "``pull_back`` must give d(objective)/d(inputs): it disagrees with differences")
    slope[1:] = 0
    _, pull_back = model.linearise(x)
    must(not np.any(pull_back(slope)[1:]), model, "must keep rows apart: a row without slope got a gradient")


def rebuilding_changes_nothing(asked: Asked) -> None:
    """``rebuilt(tensors())`` answers the same, and whatever is done to a copy leaves the original as it was."""
    model = asked.model
    if Access.WEIGHTS not in model.access or not isinstance(model, WeightModel):
        return
    before, weights = state(model), dict(model.tensors())
    twin = model.rebuilt(weights)
    must(
        same_answers(twin.ask(asked.probes), asked.answers), model, "``rebuilt(tensors())`` must give the same answers"
    )
    held = twin.rebuilt(weights)
    known = state(held)
    overwrite(dict(held.tensors()).values())
    must(state(held) == known, model, "``tensors`` must give copies, or arrays that cannot be written to")
    child = model.rebuilt({n: np.asarray(w * 0.5, w.dtype) for n, w in weights.items()})
    card, parent = child.card, model.card
    fine = card.root == parent.root and card.parents == (parent.id,) and card.id != parent.id
    must(fine, model, f"a rebuilt copy must keep the root, name its parent and have its own id, got {card}")
    untouched = state(model) == before and same_answers(model.ask(asked.probes), asked.answers)
    must(untouched, model, "``rebuilt`` must leave the original as it is")


def training_returns_a_copy(asked: Asked) -> None:
    """``trained`` leaves the original as it is, repeats with its seed, and starts a new root only from nothing."""
    model = asked.model
    if Access.TRAIN not in model.access or not isinstance(model, TrainableModel):
        return
    before, inputs = state(model), asked.probes.array
    labels = np.maximum(asked.answers.labels, 0)
    plan = Plan(1, batch_size=8, learning_rate=1e-2)
    first, again = (model.trained(inputs, labels, plan, seed=0) for _ in range(2))
    must(state(model) == before, model, "``trained`` must leave the original as it is")
    must(state(first) == state(again), model, "``trained`` must repeat with the same seed")
    card = first.card
    fine = card.root == model.card.root and card.parents == (model.card.id,)
    must(fine, model, f"a model that was trained further must keep the root and name its parent, got {card}")
    roots = {model.trained(inputs, labels, replace(plan, reset="everything"), seed).card.root for seed in (1, 2)}
    fine = len(roots) == 2 and model.card.root not in roots
    must(fine, model, "a training from scratch must start a root of its own for every seed")


def hidden_units_have_no_order(asked: Asked) -> None:
    """Units in another order give the same answers, and ``features`` shows the units of every group in their order."""
    model = asked.model
    if Access.FEATURES not in model.access or not isinstance(model, LayeredModel):
        return
    inputs, rng = asked.probes.array, np.random.default_rng(0)
    try:
        groups, seen = model.units(), model.features(inputs)
    except MinutiaError:  # a network whose graph cannot be read says so
        return
    fine = {name: values.shape for name, values in seen.items()} == {g.name: (len(inputs), g.count) for g in groups}
    must(fine, model, "``features`` must give (n, count) for every group that ``units`` names, and for no other")
    for group in groups:
        order = rng.permutation(group.count)
        twin = model.rebuilt(permuted(dict(model.tensors()), group, order))
        answers = twin.ask(asked.probes)
        same = np.array_equal(answers.labels, asked.answers.labels)
        if answers.scores is not None and asked.answers.scores is not None:
            same = np.allclose(answers.scores, asked.answers.scores, atol=1e-4)
        must(same, model, f"must name every tensor with units of {group.name}: in another order they answer otherwise")
        shown = twin.features(inputs)[group.name] if isinstance(twin, LayeredModel) else seen[group.name]
        fine = np.allclose(shown, seen[group.name][:, order], rtol=1e-3, atol=1e-4 * np.abs(shown).max(initial=0))
        must(fine, model, f"``features`` must show the units of {group.name} in the order of their tensors")


MODEL_RULES: tuple[Callable[[Asked], None], ...] = (
    one_row_per_probe,
    the_order_of_rows_is_kept,
    batches_do_not_matter,
    an_empty_batch_is_no_crash,
    access_is_truthful,
    the_card_names_the_model,
    gradients_are_derivatives,
    hidden_units_have_no_order,
    rebuilding_changes_nothing,
    training_returns_a_copy,
)


def check_model(model: Model, probes: ProbeSet) -> None:
    """Run every check of a model; it is asked these probes, at least three, several times and in several orders."""
    for rule in MODEL_RULES:
        run_rule(rule, Asked(model, probes))
