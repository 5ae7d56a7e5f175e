"""The order of hidden units in two checkpoints: kept by copies, random between independent trainings."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb, exp, lgamma, log

import numpy as np

from minutia.core.digest import Array
from minutia.core.tensors import Tensors
from minutia.methods.weights.chains import finite_rows
from minutia.methods.weights.laundered import monotone, ways
from minutia.methods.weights.products import sampled
from minutia.methods.weights.roles import Group, Mlp
from minutia.methods.weights.streams import Stream, shared_tokens, unit_rows
from minutia.stats.matching import cosines, matched
from minutia.stats.multiple import bonferroni, fisher
from minutia.stats.nulls import fixed_points_p

UNITS = 128
"""Places per group at which units are compared, the same in both checkpoints."""
GLANCE = 32
"""The same for the first look at large layers, one stretch of neighbours."""
SEEN = 1e-7
"""The p-value of a first look from which on no second one follows."""
STREAM_PLACES, STREAM_TOKENS = 512, 1024
"""Coordinates of the stream, and tokens, by which the order of a large one is compared."""
SKETCH, BLOCK = 256, 1024
"""Combinations of the stream's coordinates by which large layers are compared, and units that are read at once."""
EXPERTS = 4
"""Experts of a layer that are compared."""
TINY = 1e-300
"""The least p-value that is computed with."""
TIED = 0.3
"""Mean cosine of units in place from which on two layers of one file are taken to share their order."""
STEADY = 20
"""Redrawn orders at least as good after which no more are drawn."""
_Places = Mapping[int, Array | None]
_Group = tuple[int, int]
H0 = "the second was trained from a random initialisation of its own, and training treats units alike"
Made = tuple[Array, list[Array]]
"""Places of units and, one array (units, k) per route, what makes them."""


@dataclass(frozen=True)
class Kept:
    """One group of units: ``kept`` of ``units`` partners stand in each other's place, or in rising order.

    ``first`` and ``second`` are the layers that were compared, -1 for the stream's coordinates, and ``expert`` is
    the MLP within them; ``places`` are those of the partners that stand in each other's place. One that is tied to
    an earlier group in both checkpoints does not count: its order is no evidence of its own.
    """

    name: str
    units: int
    kept: int
    p: float
    first: int = -1
    second: int = -1
    places: tuple[int, ...] = ()
    rising: bool = False
    expert: int = 0
    counts: bool = True


@dataclass(frozen=True)
class Order:
    """All groups that were compared, and the p-value of all of them together; exact, or an upper bound."""

    groups: tuple[Kept, ...]
    p: float


def kept_order(
    order: Array, others: int, name: str, first: int = -1, second: int = -1, *, aligned: bool | None = None
) -> Kept:
    """What partners' places (n,) among ``others`` units are worth: fixed points, or a rising sequence.

    H0: the other's units stand in uniformly random order. Where units were taken at the same places of both
    (``aligned``; by default where there are as many), k or more keep their place with a probability of at most 1/k!;
    else m partners hold a rising sequence of k with one of at most C(m, k)/k!.

    >>> kept_order(np.arange(8), 8, "up").p < 3e-5, kept_order(np.arange(12), 14, "up").kept
    (True, 12)

    References: for the rising sequence, first moment of the number of rising sequences, J. M. Hammersley, A few
    seedlings of research, Proc. Sixth Berkeley Symposium, 1972.
    """
    met = order[order >= 0]
    if (len(order) == others) if aligned is None else aligned:
        places = np.flatnonzero(order == np.arange(len(order)))
        return Kept(name, len(met), len(places), fixed_points_p(len(places)), first, second, tuple(map(int, places)))
    rising = _rising(met)
    p = exp(min(0.0, log(comb(len(met), rising)) - lgamma(rising + 1))) if len(met) else 1.0
    return Kept(name, len(met), rising, max(p, TINY), first, second, rising=True)


def _rising(values: Array) -> int:
    """Length of the longest rising sequence."""
    piles: list[int] = []
    for value in map(int, values):
        at = int(np.searchsorted(piles, value))
        piles[at : at + 1] = [value]
    return len(piles)


def unit_order(
    first: Stream,
    second: Stream,
    rng: np.random.Generator,
    tokens: tuple[Sequence[str], Sequence[str]] | None = None,
    units: int = UNITS,
) -> Order:
    """Compare the order of hidden units, layer by layer, and of the stream's coordinates in two transformers.

    H0: the second started from a random initialisation of its own, drawn unit by unit, and its training treats units
    alike. Then the order of the units of each layer is uniformly random given everything else, and so is that of the
    stream's coordinates: K places kept in G groups have a probability of at most G^K/K!. Units are compared at
    ``units`` places drawn with ``rng``, by what makes them, in the order in which the stream is stored; the stream by
    the rows of shared tokens, which have names. Where depths differ layers are aligned, and p is multiplied by the
    number of alignments.

    Checkpoints with large layers are looked at twice, at GLANCE neighbouring places of each layer and then at all of
    this; the second look is spared where the first gives SEEN. Shapes alone say whether there are two, and either p
    is doubled for it.

    Source: Zhu, Ahmed, Kuditipudi, Liang, "Independence Tests for Language Models", ICML 2025, arXiv 2502.12292.
    """
    if not (first.large or second.large):
        return _look(first, second, _draw(first, second, rng, units), tokens, rng, stream=True)
    looks = [_look(first, second, _stretches(first, second, rng), tokens, rng, stream=False)]
    if looks[0].p > SEEN / 2:
        turn = rng.standard_normal((first.width, SKETCH), np.float32)
        looks.append(_look(first, second, _draw(first, second, rng, units), tokens, rng, stream=True, turn=turn))
    best = min(looks, key=lambda look: look.p)
    return replace(best, p=min(1.0, 2 * best.p))


def _look(
    first: Stream,
    second: Stream,
    places: tuple[_Places, _Places],
    tokens: tuple[Sequence[str], Sequence[str]] | None,
    rng: np.random.Generator,
    *,
    stream: bool,
    turn: Array | None = None,
) -> Order:
    """Compare units at the places drawn, and the stream if it is to be; the second is read layer by layer."""
    if first.width != second.width:
        return Order((), 1.0)
    mine = [[_made(first, mlp, places[0], turn) for mlp in block[:EXPERTS]] for block in first.blocks]
    theirs = ([_made(second, mlp, places[1], turn) for mlp in block[:EXPERTS]] for block in second.blocks)
    groups, tries = layers_kept(mine, theirs, len(second.blocks), rng)
    groups += _stream_order(first, second, tokens, rng) if stream else []
    return Order(tuple(groups), joint_p(groups, tries))


def layers_kept(
    mine: Sequence[Sequence[Made]], theirs: Iterable[Sequence[Made]], depth: int, rng: np.random.Generator
) -> tuple[list[Kept], float]:
    """Compare layers of the first with the ``depth`` layers of the second, and the number of ways to align them.

    Layers and experts that share one order in both files, as tied or copied ones do, count once.
    """
    found: dict[tuple[int, int], list[Kept]] = {}
    held = []
    for column, block in enumerate(theirs):
        held.append(block)
        for row in [column] if len(mine) == depth else range(len(mine)):
            found[row, column] = _experts_kept(mine[row], block, (row, column), rng)
    tries, cells = 1.0, sorted(found)
    if len(mine) != depth:
        gains = np.array([sum(kept.kept for kept in found[cell]) for cell in cells]).reshape(len(mine), depth)
        tries, cells = ways(gains.shape), list(monotone(gains))
    return _counted_once([kept for cell in cells for kept in found[cell]], _tied(mine), _tied(held)), tries


def _tied(blocks: Sequence[Sequence[Made]]) -> dict[_Group, _Group]:
    """For each layer and expert the first one of the same file whose units are alike, place by place."""
    shapes: dict[tuple[bytes, tuple[int, ...]], list[_Group]] = defaultdict(list)
    for layer, block in enumerate(blocks):
        for expert, (places, routes) in enumerate(block):
            shapes[places.tobytes(), routes[0].shape].append((layer, expert))
    found: dict[_Group, _Group] = {}
    for (_, shape), keys in shapes.items():
        rows = np.stack([blocks[layer][expert][1][0].ravel() for layer, expert in keys])
        alike = rows @ rows.T > TIED * max(1, shape[0])
        found |= {
            key: keys[int(line[: at + 1].argmax())] if line[at] else key
            for at, (key, line) in enumerate(zip(keys, alike, strict=True))
        }
    return found


def _counted_once(
    groups: Sequence[Kept],
    mine: Mapping[_Group, _Group],
    theirs: Mapping[_Group, _Group],
) -> list[Kept]:
    """Groups that are tied to an earlier one in both files do not count."""
    seen, found = set(), []
    for kept in groups:
        key = mine[kept.first, kept.expert], theirs[kept.second, kept.expert]
        found.append(replace(kept, counts=key not in seen))
        seen.add(key)
    return found


def joint_p(groups: Sequence[Kept], tries: float) -> float:
    """Fixed points of all groups at once, rising sequences by Fisher; the layers may be aligned in ``tries`` ways."""
    placed, rising = ([g for g in groups if g.counts and g.rising == way] for way in (False, True))
    ps = [fixed_points_p(sum(g.kept for g in placed), len(placed))] if placed else []
    ps += [max(TINY, fisher([g.p for g in rising]))] if rising else []
    return min(1.0, tries * bonferroni(ps)) if ps else 1.0


def _draw(first: Stream, second: Stream, rng: np.random.Generator, units: int) -> tuple[_Places, _Places]:
    """For each number of units the places to read, the same in both; all of the second's where numbers differ."""
    counts = [sorted({mlp.units for mlp in stream.roles.mlps}) for stream in (first, second)]
    mine = {n: sampled(n, units, rng, first.large or second.large) for n in counts[0]}
    return mine, {n: mine.get(n) for n in counts[1]}


def _stretches(first: Stream, second: Stream, rng: np.random.Generator) -> tuple[_Places, _Places]:
    """For each number of units that both have GLANCE places in a row from a random one on; none of other numbers."""
    counts = [{mlp.units for mlp in stream.roles.mlps} for stream in (first, second)]
    starts = {n: int(rng.integers(max(1, n - GLANCE + 1))) for n in sorted(counts[0] & counts[1])}
    places = {n: np.arange(start, min(start + GLANCE, n)) for n, start in starts.items()}
    nowhere = np.zeros(0, dtype=np.int64)
    mine, theirs = ({n: places.get(n, nowhere) for n in own} for own in counts)
    return mine, theirs


def _made(stream: Stream, mlp: Mlp, at: _Places, turn: Array | None) -> Made:
    """The places of the units that are compared and what makes them, of length 1; ``turn`` (width, k) multiplies it."""
    places = at[mlp.units]
    places = np.arange(mlp.units) if places is None else places
    if turn is None:
        return places, [unit_rows(rows) for rows in stream.reads(mlp, places)]
    parts = np.array_split(places, -(-len(places) // BLOCK) or 1)
    read = [[rows @ turn for rows in stream.reads(mlp, part)] for part in parts]
    return places, [unit_rows(np.concatenate(rows)) for rows in zip(*read, strict=True)]


def _experts_kept(
    mine: Sequence[Made],
    theirs: Sequence[Made],
    cell: tuple[int, int],
    rng: np.random.Generator,
) -> list[Kept]:
    """Compare a layer with a layer, expert by expert; nothing where routes differ or no places are common."""
    found = []
    for at, ((places, a), (others, b)) in enumerate(zip(mine, theirs, strict=False)):
        if len(a) == len(b) and len(places) and len(others):
            name = f"layer {cell[0]}" + (f", expert {at}" if len(mine) > 1 else "")
            order = _partners(a, b, rng)
            if (order >= 0).any():
                aligned = np.array_equal(places, others)
                kept = kept_order(order, len(others), name, *cell, aligned=aligned)
                same = places[list(kept.places)] if aligned else ()
                found.append(replace(kept, expert=at, places=tuple(map(int, same))))
    return found


def _partners(first: Sequence[Array], second: Sequence[Array], rng: np.random.Generator) -> Array:
    """The partner of each unit by all routes; -1 for a dead one, which has no weights, as for one left over."""
    alive = [np.flatnonzero(np.sum([(rows != 0).any(axis=1) for rows in side], axis=0)) for side in (first, second)]
    tables = [a[alive[0]] @ b[alive[1]].T for a, b in zip(first, second, strict=True)]
    found = matched(np.sum([tables[0], *map(np.abs, tables[1:])], axis=0), rng)
    order = np.full(len(first[0]), -1, dtype=np.int64)
    order[alive[0][found >= 0]] = alive[1][found[found >= 0]]
    return order


def _stream_order(
    first: Stream, second: Stream, tokens: tuple[Sequence[str], Sequence[str]] | None, rng: np.random.Generator
) -> list[Kept]:
    """The order of the stream's coordinates, by the rows of tokens that both know; signs may differ."""
    shared = shared_tokens(first, second, tokens, rng)
    if shared is None or first.width != second.width:
        return []
    known, some = [*shared], np.arange(first.width)
    if first.large or second.large:
        some = np.sort(rng.permutation(first.width)[:STREAM_PLACES])
        chosen = sampled(len(known[0]), STREAM_TOKENS, rng, large=True)
        known = [numbers[chosen] for numbers in known]
    tables = zip(first.tokens(known[0]), second.tokens(known[1]), strict=False)
    rows = [(a[:, some].T, b[:, some].T) for a, b in tables]
    alike = np.sum([np.abs(cosines(a - a.mean(0), b - b.mean(0))) for a, b in rows], axis=0)
    found = kept_order(matched(alike, rng), len(some), "stream")
    return [replace(found, places=tuple(map(int, some[list(found.places)])))]


def group_order(
    first: Tensors, second: Tensors, pairs: Sequence[tuple[Group, Group]], rng: np.random.Generator
) -> Order:
    """Compare the order of hidden units in networks that are no transformers, group by group.

    Layers that are added to each other keep one order of units, and names do not tell which. Groups of one size are
    therefore taken together by the smallest p-value times their number, which holds however they depend on each other,
    and only these by Fisher's method: layers of different sizes cannot share an order.
    """
    found, by_size = [], defaultdict[int, list[float]](list)
    for at, (mine, theirs) in enumerate(pairs):
        a, b = finite_rows(first, mine, "the first"), finite_rows(second, theirs, "the second")
        if a.shape[1] != b.shape[1]:
            continue
        kept = kept_order(matched(cosines(a, b), rng), len(b), mine.tensor, at, at)
        found.append(kept)
        by_size[mine.units].append(kept.p)
    if not found:
        return Order((), 1.0)
    return Order(tuple(found), max(TINY, fisher([bonferroni(ps) for ps in by_size.values()])))


def redrawn_p(seen: int, draw: Callable[[], int], draws: int) -> tuple[float, float]:
    """The p-value of a count against redrawn counts, and its floor: (1 + #) / (draws + 1).

    Stops after STEADY counts as large as the one seen, with p = STEADY / drawn, which is valid as well.

    >>> redrawn_p(5, iter(range(100)).__next__, 99)[0]
    0.8

    References: J. Besag and P. Clifford, Sequential Monte Carlo p-values, Biometrika 78(2), 1991.
    """
    reached = 0
    for drawn in range(1, draws + 1):
        reached += draw() >= seen
        if reached == STEADY:
            return STEADY / drawn, 1 / (draws + 1)
    return (1 + reached) / (draws + 1), 1 / (draws + 1)
