"""Two checkpoints: derived, of one ancestor or initialisation, or unrelated; and which null says so."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from minutia.core.comparison import LEAST, Comparison, Kinship, LayerMatch, Relation
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.tensors import Tensors
from minutia.methods.weights.baselines import baselines
from minutia.methods.weights.chains import chain, corresponding, finite_rows
from minutia.methods.weights.kinship import origin
from minutia.methods.weights.laundered import ALLOWANCE, Agreement, agreement, in_place
from minutia.methods.weights.order import H0 as ORDER_H0
from minutia.methods.weights.order import Kept, Order, group_order, redrawn_p, unit_order
from minutia.methods.weights.roles import roles
from minutia.methods.weights.routes import Matching
from minutia.methods.weights.streams import (
    Alignment,
    Stream,
    by_geometry,
    by_vocabulary,
    in_step,
    shared_tokens,
    standing,
)
from minutia.stats.matching import share_p

Tokens = tuple[Sequence[str], Sequence[str]]
SPLIT = {"unit order": 0.5, "vocabulary": 0.25, "geometry": 0.15, "turned stream": 0.1}
"""What each test may spend of alpha; fixed, so that nobody picks a test after looking."""
CHAIN_SPLIT = {"unit order": 0.5, "two routes": 0.5}
ENOUGH = 1e-6
"""A p-value from which on no other test is run."""
CHAIN_ALLOWANCE = 0.5
"""Share of a chain's units that may be matched alike by two routes in independent networks."""
LEAST_UNITS = 64
"""Units that must have been looked for before a pair is called unrelated."""
SAMPLED = 1024
"""Tokens by which embeddings are said to be alike."""
DRAWS = 999
"""Turned streams that an agreement in place is compared with."""

NEAR = "the parent may be a common base that one of them has hardly left: if there is one, compare both with it"
AVERAGE = "two children of one ancestor, of unequal size, may look like an average"
DISTILLED = "a distilled copy shares no units with its teacher: ask its answers with minutia verify"
H0 = {
    "unit order": ORDER_H0,
    "turned stream": "the same, and the coordinates of its residual stream have no order or sign of their own",
    "vocabulary": "independent trainings: units match no more often between corresponding layers than between other "
    "layers of the same two files, or fewer than the allowance of them match",
    "two routes": "independent trainings: fewer than half of the hidden units match mine alike by two routes",
}
H0["geometry"] = H0["vocabulary"]


def compare(
    first: Tensors,
    second: Tensors,
    *,
    seed: int = 0,
    alpha: float = 0.01,
    tokens: Tokens | None = None,
    weak: bool = False,
) -> Comparison:
    """Say from two files alone whether they descend from one training; nothing is executed, units are sampled.

    The exact test of the order of units comes first. Where it does not decide, hidden units are matched in any
    order, rotation and scale; there the null is assumed. ``tokens`` are both vocabularies as strings, by which
    re-ordered rows are brought together. Where p <= alpha, it is *derived* if one holds the weights of the other
    (``kinship.holds``), and else *shared ancestor or initialisation*. *Unrelated* is said only if every test that a
    laundered copy would not have escaped was run on enough units; distilled copies and small shares of a merge share
    no units and are unrelated in this sense. ``weak`` adds measures without a null, which decide nothing and read
    whole matrices. UsageError for an alpha outside (0, 1), ModelError for NaN weights.

    >>> from minutia.core.tensors import Arrays
    >>> draw = np.random.default_rng(0).normal
    >>> one = {"0.weight": draw(size=(32, 9)), "2.weight": draw(size=(32, 32)), "4.weight": draw(size=(3, 32))}
    >>> two = {name: value + 0.1 * draw(size=value.shape) for name, value in one.items()}
    >>> found = compare(Arrays(one), Arrays(two))
    >>> found.relation, found.null, found.p_value
    ('derived', 'exact', 1e-12)
    """
    if not 0 < alpha < 1:
        raise UsageError(f"expected an alpha between 0 and 1, got {alpha}")
    names = ("the first", "the second")
    kinds = [roles(source, name) for source, name in zip((first, second), names, strict=True)]
    rng = np.random.default_rng(seed)
    one, two = Stream(first, kinds[0], names[0]), Stream(second, kinds[1], names[1])
    if all(found.mlps for found in kinds):
        found = _transformers(one, two, tokens, rng)
    elif any(found.mlps for found in kinds):
        found = _Evidence(notes=("one is a transformer and the other is not: nothing can be compared",))
    else:
        found = _chains(first, second, rng)
    judged = found.judged(alpha)
    return replace(judged, baselines=baselines(one, two, tokens, np.random.default_rng(seed))) if weak else judged


@dataclass(frozen=True)
class _Evidence:
    """P-values by test, the strip of the test that decides, and whether a laundered copy could have escaped."""

    tests: tuple[tuple[str, float], ...] = ()
    strips: tuple[tuple[str, tuple[LayerMatch, ...]], ...] = ()
    split: tuple[tuple[str, float], ...] = ()
    complete: bool = False
    notes: tuple[str, ...] = ()

    def judged(self, alpha: float) -> Comparison:
        """The verdict."""
        shares = dict(self.split)
        spent = {test: min(1.0, p / shares[test]) for test, p in self.tests}
        if not spent:
            return Comparison("undecided", 1.0, "none", "", "", alpha, notes=self.notes)
        test = min(spent, key=lambda name: spent[name])
        p = max(LEAST, spent[test])
        strip = dict(self.strips).get(test, ())
        relation: Relation = "unrelated" if self.complete and p > 5 * alpha else "undecided"
        merged = None
        if p <= alpha:
            relation, merged = origin(strip)
        null: Literal["exact", "assumed"] = "exact" if test in ("unit order", "turned stream") else "assumed"
        remark = {"unrelated": DISTILLED, "derived": NEAR}.get(relation, "")
        notes = tuple(note for note in (*self.notes, remark, AVERAGE if merged else "") if note)
        return Comparison(relation, p, null, test, H0[test], alpha, self.tests, strip, merged, notes=notes)


def _transformers(first: Stream, second: Stream, tokens: Tokens | None, rng: np.random.Generator) -> _Evidence:
    """Exact order first, then both alignments, then the exact test of a stream in place."""
    if first.roles.gated != second.roles.gated:
        return _Evidence(notes=("one has gated MLPs and the other has not: their units cannot be compared",))
    order = unit_order(first, second, rng, tokens)
    found = _Evidence((("unit order", order.p),), (("unit order", _kept(first, second, order)),), tuple(SPLIT.items()))
    if order.p <= ENOUGH:
        return found
    shared, looked = shared_tokens(first, second, tokens, rng), 0
    for test in ("vocabulary", "geometry"):
        found, alive = _aligned(first, second, found, test, shared, rng)
        looked = max(looked, alive)
        if min(p for _, p in found.tests) <= ENOUGH:
            return found
    turned = first.width == second.width and len(first.blocks) == len(second.blocks)
    if turned:
        found = _turned_stream(first, second, found, rng)
    seen_turned = tokens is not None or "geometry" in dict(found.tests)
    notes = _gaps(first, second, shared, looked, None if seen_turned else rng)
    return replace(found, complete=not notes, notes=notes)


def _aligned(
    first: Stream,
    second: Stream,
    found: _Evidence,
    test: str,
    shared: tuple[Array, Array] | None,
    rng: np.random.Generator,
) -> tuple[_Evidence, int]:
    """Match units in coordinates that one of the two ways gives, and how many of them had weights to be found by."""
    if test == "geometry":
        alignment = by_geometry(first, second)
    else:
        alignment = by_vocabulary(first, second, shared) if shared is not None else None
    if alignment is None:
        return found, 0
    seen = agreement(first, second, alignment, rng)
    return _with(found, test, seen.p_value(), _matches(first, second, seen, alignment)), seen.alive


def _gaps(
    first: Stream, second: Stream, shared: tuple[Array, Array] | None, looked: int, rng: np.random.Generator | None
) -> tuple[str, ...]:
    """Why a disguised copy could have escaped; nothing where it could not.

    ``rng`` is given where re-ordered tokens would have been missed.
    """
    if shared is None and (first.width != second.width or len(first.blocks) != len(second.blocks)):
        return ("no tokens are known to be the same: only copies in place are seen",)
    if shared is None:
        return ("vocabularies differ and have no strings: only light changes are seen",)
    if looked < LEAST_UNITS:
        return ("too few hidden units with weights of their own, or norms that are 0 (are they stored less 1?)",)
    if rng is not None and not in_step(first, second, shared, rng):
        return ("tokens may have other numbers in the second: give the strings of both vocabularies",)
    return ()


def _with(found: _Evidence, test: str, p: float, strip: tuple[LayerMatch, ...]) -> _Evidence:
    return replace(found, tests=(*found.tests, (test, p)), strips=(*found.strips, (test, strip)))


def _turned_stream(first: Stream, second: Stream, found: _Evidence, rng: np.random.Generator) -> _Evidence:
    """The exact test of a stream in place: agreement against random orders and signs of the second's coordinates.

    It is run only where agreement in place is above the allowance, and counts as 1 elsewhere.
    """
    place = standing(first.width)
    seen = in_place(first, second, rng)
    count = seen.count()
    if count <= ALLOWANCE * seen.most:
        return found
    p, _ = redrawn_p(count, lambda: seen.turned(rng).count(), DRAWS)
    return _with(found, "turned stream", p, _matches(first, second, agreement(first, second, place, rng), place))


def _kept(first: Stream, second: Stream, order: Order) -> tuple[LayerMatch, ...]:
    """The strip of the order test: places kept in each pair of layers, and rows there."""
    cells: dict[tuple[int, int], list[Kept]] = {}
    for kept in order.groups:
        cells.setdefault((kept.first, kept.second), []).append(kept)
    found = (_kept_stream if cell[0] < 0 else _kept_layer for cell in cells)
    return tuple(make(first, second, *item) for make, item in zip(found, cells.items(), strict=True))


def _kept_stream(first: Stream, second: Stream, cell: tuple[int, int], found: Sequence[Kept]) -> LayerMatch:
    """The coordinates of the stream that kept their place, as far as tokens of the same number tell."""
    kept = found[0]
    match = LayerMatch(*cell, "embedding", kept.kept / max(1, kept.units))
    known = np.arange(min(first.vocabulary, second.vocabulary, SAMPLED))
    if not kept.places or first.vocabulary != second.vocabulary:
        return match
    mine, theirs = (stream.tokens(known)[0][:, np.array(kept.places)] for stream in (first, second))
    return replace(match, kinship=Kinship.of(mine, theirs))


def _kept_layer(first: Stream, second: Stream, cell: tuple[int, int], found: Sequence[Kept]) -> LayerMatch:
    share = sum(kept.kept for kept in found) / max(1, sum(kept.units for kept in found))
    match = LayerMatch(*cell, f"layer {cell[0]}", share)
    mine, theirs = [], []
    for kept in found:
        if kept.places:
            places = np.array(kept.places)
            mine.append(first.reads(first.blocks[cell[0]][kept.expert], places)[0])
            theirs.append(second.reads(second.blocks[cell[1]][kept.expert], places)[0])
    return replace(match, kinship=Kinship.of(np.concatenate(mine), np.concatenate(theirs))) if mine else match


def _matches(first: Stream, second: Stream, seen: Agreement, alignment: Alignment) -> tuple[LayerMatch, ...]:
    """The strip of a matching: agreeing units in each pair of layers, and their first route in common coordinates."""
    grid, found = seen.decisive, []
    for row, column in grid.path:
        layer = seen.rows[row]
        match = LayerMatch(layer, column, f"layer {layer}", float(grid.shares[row, column]))
        partner = seen.partners[row, column]
        met = np.flatnonzero(partner >= 0)
        if len(met):
            mine = first.rows(layer, seen.looked[row][met])[0] @ alignment.whole[0]
            theirs = second.rows(column, partner[met])[0] @ alignment.whole[1]
            match = replace(match, kinship=Kinship.of(mine, theirs))
        found.append(match)
    return tuple(found)


def _chains(first: Tensors, second: Tensors, rng: np.random.Generator) -> _Evidence:
    """The order of units group by group, then two routes where every layer reads all of the one before."""
    pairs = corresponding(roles(first), roles(second))
    order = group_order(first, second, pairs, rng)
    if not order.groups:
        return _Evidence(notes=("no two layers have inputs of one size: nothing can be compared",))
    strip = []
    for kept in order.groups:
        mine, theirs = pairs[kept.first]
        match = LayerMatch(kept.first, kept.second, kept.name, kept.kept / max(1, kept.units))
        if kept.places:
            places = np.array(kept.places)
            rows = (finite_rows(first, mine, "the first")[places], finite_rows(second, theirs, "the second")[places])
            match = replace(match, kinship=Kinship.of(*rows))
        strip.append(match)
    found = _Evidence((("unit order", order.p),), (("unit order", tuple(strip)),), tuple(CHAIN_SPLIT.items()))
    links = [chain(first), chain(second)]
    if order.p <= ENOUGH or links[0] is None or links[1] is None:
        note = "layers may be added to each other: only copies that keep the order of units are seen"
        return found if order.p <= ENOUGH else replace(found, notes=(note,))
    matching = Matching.of(links[0], links[1])
    same, compared = matching.agreement()
    found = _with(found, "two routes", share_p(same, compared, CHAIN_ALLOWANCE), _by_routes(matching))
    return replace(found, complete=compared >= LEAST_UNITS)


def _by_routes(matching: Matching) -> tuple[LayerMatch, ...]:
    """The strip of two routes: each group's partners, by the cosine of what makes them."""
    found = []
    for group, partners in matching.partners.items():
        rows = [_incoming(matching, group, side) for side in (True, False)]
        met = np.flatnonzero(partners.order >= 0)
        kinship = Kinship.of(rows[0][met], rows[1][partners.order[met]]) if len(met) else None
        found.append(LayerMatch(group, group, f"layer {group}", len(met) / max(1, len(partners.order)), kinship))
    return tuple(found)


def _incoming(matching: Matching, group: int, mine: bool) -> Array:
    """What makes the units of a group, in the order of the first's inputs."""
    links = matching.mine if mine else matching.theirs
    link = links.links[links.into(group, (-1, *matching.partners))[0]]
    weights = link.weights
    if not mine and link.source in matching.partners:
        weights = weights[:, np.maximum(matching.partners[link.source].order, 0)]
    return np.asarray(weights.reshape(len(weights), -1))
