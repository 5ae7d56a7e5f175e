"""Residual streams: weights that read or write them, norms folded in, and the rotation between two of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import ModelError
from minutia.core.tensors import Tensors
from minutia.methods.weights.products import STEP, product, sampled, transposed_product
from minutia.methods.weights.roles import Mlp, Roles, roles

TOKENS = 4096
"""Rows of the vocabulary by which streams are aligned, drawn with the seed."""
WIDEST = 2048
"""Widest stream of which all directions are aligned."""
LARGE = 2**20
"""Numbers in a matrix of an MLP from which on its units are not held in all coordinates of the stream."""
DROPPED = 0.25
"""Share of the stream's directions, those that two vocabularies share most, by which units are not matched."""
ROUNDS = 64
"""Rounds at most in which a rotation without a vocabulary is refined."""
STILL = 1e-4
"""Largest change of a rotation's entry at which it is refined no more."""
POOL = 2048
"""Rows of each kind that refine it."""
IN_STEP, SHUFFLES = 512, 999
"""Tokens by which vocabularies are said to be in one order, and the random orders that this must exceed."""
Rows = tuple[Array, ...]
"""The weights of the same units, one array (units, width) per route: gate, up, down, or up, down."""


@dataclass(frozen=True, eq=False)
class Stream:
    """A transformer's checkpoint seen from its residual stream; reads what it is asked for.

    >>> from minutia.core.tensors import Arrays
    >>> one = {"wte.weight": np.ones((9, 4)), "h.0.mlp.fc1.weight": np.ones((6, 4))}
    >>> one["h.0.mlp.fc2.weight"] = np.ones((4, 6))
    >>> stream = Stream.of(Arrays(one), "first")
    >>> stream.width, [rows.shape for rows in stream.rows(0)]
    (4, [(6, 4), (6, 4)])
    """

    source: Tensors
    roles: Roles
    name: str

    @classmethod
    def of(cls, source: Tensors, name: str) -> "Stream":
        """Find the roles; ``name`` is what errors call the checkpoint."""
        return cls(source, roles(source), name)

    @property
    def width(self) -> int:
        """Coordinates of the stream."""
        return self.roles.width

    @cached_property
    def blocks(self) -> tuple[tuple[Mlp, ...], ...]:
        """The MLPs of each layer that has any: one, or its experts."""
        return tuple(tuple(m for m in self.roles.mlps if m.layer == layer) for layer in self.roles.layers)

    def units(self, layer: int) -> int:
        """Hidden units of a layer, those of all experts together."""
        return sum(mlp.units for mlp in self.blocks[layer])

    def rows(self, layer: int, wanted: Array | None = None) -> Rows:
        """What makes and what leaves hidden units of a layer, in stream coordinates: (wanted or all, width) each.

        A norm's scale is multiplied into what reads the stream, and its mean taken out where it centres. NaN or
        infinite weights: ModelError.
        """
        parts: list[list[Array]] = []
        for first, mlp in self._experts(layer):
            own = None if wanted is None else _within(wanted, first, mlp.units)
            if own is None or len(own):
                parts.append(self._mlp(mlp, own))
        found = tuple(np.concatenate(routes) for routes in zip(*parts, strict=True))
        if wanted is not None:  # experts are read one after the other
            order = np.argsort(np.argsort(wanted, kind="stable"), kind="stable")
            found = tuple(rows[order] for rows in found)
        return found

    @property
    def large(self) -> bool:
        """Whether some layer has too many weights to hold all of them in memory."""
        return any(sum(mlp.units for mlp in block) * self.width > LARGE for block in self.blocks)

    def mapped(self, layer: int, turn: Array) -> Rows:
        """All that ``rows`` gives, multiplied by ``turn`` (width, k): (units, k) each, without holding the layer."""
        parts = []
        for mlp in self.blocks[layer]:
            inward = self._scale(mlp.norm)[:, None] * (turn - turn.mean(axis=0) if mlp.centred else turn)
            found = [product(self.source, m, _single(inward)) for m in (mlp.gate, mlp.up) if m is not None]
            found.append(transposed_product(self.source, mlp.down, _single(turn)))
            self._checked(found, layer)
            parts.append(found)
        return tuple(np.concatenate(routes) for routes in zip(*parts, strict=True))

    def tokens(self, wanted: Array | None = None) -> list[Array]:
        """Embedding and head, norms folded in, rows of length 1: (wanted or all, width) each; a tied one once."""
        found = []
        for matrix, norm in ((self.roles.embedding, None), (self.roles.head, self.roles.final_norm)):
            if matrix is None or (norm and matrix == self.roles.embedding):
                continue
            table = matrix.rows(self.source, wanted)
            self._finite([table], matrix.tensor)
            found.append(unit_rows(table * self._scale(norm)))
        return found

    @property
    def vocabulary(self) -> int:
        """Tokens; 0 without an embedding."""
        return 0 if self.roles.embedding is None else self.roles.embedding.outputs

    def _experts(self, layer: int) -> Iterator[tuple[int, Mlp]]:
        first = 0
        for mlp in self.blocks[layer]:
            yield first, mlp
            first += mlp.units

    def reads(self, mlp: Mlp, wanted: Array | None = None) -> list[Array]:
        """What makes hidden units of one MLP: gate and up, or up, (wanted or all, width) each; NaN: ModelError."""
        scale = self._scale(mlp.norm)
        found = [m.rows(self.source, wanted) * scale for m in (mlp.gate, mlp.up) if m is not None]
        self._checked(found, mlp.layer)
        return [rows - rows.mean(axis=1, keepdims=True) for rows in found] if mlp.centred else found

    def _mlp(self, mlp: Mlp, wanted: Array | None) -> list[Array]:
        written = mlp.down.columns(self.source, wanted)
        self._checked([written], mlp.layer)
        return [*self.reads(mlp, wanted), written]

    def _checked(self, parts: Sequence[Array], layer: int) -> None:
        self._finite(parts, f"layer {layer}")

    def _finite(self, parts: Sequence[Array], where: str) -> None:
        if not all(np.isfinite(rows).all() for rows in parts):
            raise ModelError(
                f"expected finite weights to compare units by, got NaN or infinity in {where} of {self.name}: "
                "compare a checkpoint whose training did not break down"
            )

    def _scale(self, norm: str | None) -> Array:
        if norm is None:
            return np.ones(1, np.float32)
        found = self.source.read(norm)
        self._finite([found], norm)
        return found


def _within(wanted: Array, first: int, count: int) -> Array:
    inside = np.sort(np.asarray(wanted))
    return np.asarray(inside[(inside >= first) & (inside < first + count)] - first)


def unit_rows(rows: Array) -> Array:
    """Rows of length 1; rows of zeros stay.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(size > 0, size, 1.0))


def orthogonalised(routes: Rows) -> Rows:
    """Take out of each unit's route what it has in common with the unit's routes before it; rows of length 1.

    >>> [rows.round(3).tolist() for rows in orthogonalised((np.array([[1.0, 0.0]]), np.array([[3.0, 2.0]])))]
    [[[1.0, 0.0]], [[0.0, 1.0]]]
    """
    done: list[Array] = []
    for rows in map(unit_rows, routes):
        for before in done:
            rows = rows - np.sum(rows * before, axis=1, keepdims=True) * before
        done.append(unit_rows(rows))
    return tuple(done)


def shared_tokens(
    first: Stream, second: Stream, tokens: tuple[Sequence[str], Sequence[str]] | None, rng: np.random.Generator
) -> tuple[Array, Array] | None:
    """Numbers of the same tokens in both vocabularies, TOKENS of them at most; None where none are known to be.

    Without token strings, equal numbers are taken for equal tokens where both vocabularies have one size.
    """
    if tokens is not None:
        places = {token: at for at, token in enumerate(tokens[1][: second.vocabulary])}
        both = [(at, places[t]) for at, t in enumerate(tokens[0][: first.vocabulary]) if t in places]
        mine, theirs = np.array(both, dtype=np.int64).reshape(-1, 2).T
    elif first.vocabulary == second.vocabulary:
        mine = theirs = np.arange(first.vocabulary)
    else:
        return None
    if len(mine) < 2:
        return None
    kept = sampled(len(mine), TOKENS, rng, first.large or second.large)
    return mine[kept], theirs[kept]


def in_step(first: Stream, second: Stream, shared: tuple[Array, Array], rng: np.random.Generator) -> bool:
    """Whether tokens taken for the same are: what is alike in one embedding is alike in the other as well.

    The similarities of some of the tokens to each other agree better than after any of SHUFFLES random orders of the
    second's, which holds for copies and for independent models of one language, but not after re-ordering.
    """
    chosen = sampled(len(shared[0]), IN_STEP, rng, first.large or second.large)
    grams = []
    for stream, numbers in ((first, shared[0]), (second, shared[1])):
        rows = stream.tokens(numbers[chosen])[0]
        rows = unit_rows(rows - rows.mean(axis=0))
        grams.append(rows @ rows.T)
    np.fill_diagonal(grams[0], 0)
    seen = float(np.sum(grams[0] * grams[1]))
    orders = (rng.permutation(len(chosen)) for _ in range(SHUFFLES))
    return all(float(np.sum(grams[0] * grams[1][np.ix_(order, order)])) < seen for order in orders)


@dataclass(frozen=True, eq=False)
class Alignment:
    """Two maps into common coordinates, ``first`` and ``second`` (width, k), by which rows are multiplied.

    ``whole`` are the same with all directions kept, to say how alike matched rows are.
    """

    first: Array
    second: Array
    whole: tuple[Array, Array]


def standing(width: int) -> Alignment:
    """Coordinates as they are stored.

    >>> standing(2).first.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    same = np.eye(width, dtype=np.float32)
    return Alignment(same, same, (same, same))


def by_vocabulary(first: Stream, second: Stream, shared: tuple[Array, Array], dropped: float = DROPPED) -> Alignment:
    """Align by the tokens that both know, less the ``dropped`` share of directions that the vocabularies share most.

    Independent models that know the same words have embedding-like directions in common; what is left of the
    stream is as exact for a laundered copy, and carries nothing for strangers.
    """
    left, right = map(_single, _common(first, second, shared))
    kept = slice(round(dropped * left.shape[1]), None)
    return Alignment(left[:, kept], right[:, kept], (left, right))


def _common(first: Stream, second: Stream, shared: tuple[Array, Array]) -> tuple[Array, Array]:
    """Directions of both streams (width, k) that shared tokens bring together, those that they share most first.

    Streams wider than WIDEST are aligned where some of the tokens lie, k of them at most: a larger cross Gram matrix
    would take too much memory.
    """
    from scipy.linalg import qr, svd

    width = max(first.width, second.width)
    if width > WIDEST:
        few = np.linspace(0, len(shared[0]) - 1, min(len(shared[0]), WIDEST // 2)).astype(np.int64)
        both = min(len(stream.tokens(shared[0][:1])) for stream in (first, second))
        sides = zip((first, second), shared, strict=True)
        tables = (np.concatenate(stream.tokens(own[few])[:both]).T for stream, own in sides)
        (mine, upper), (theirs, other) = (qr(t, mode="economic", overwrite_a=True, check_finite=False) for t in tables)
        left, _, right = svd(upper @ other.T, full_matrices=False, overwrite_a=True, check_finite=False)
        mine = mine @ left
        return mine, theirs @ right.T
    cross = np.zeros((first.width, second.width), np.float32 if first.large or second.large else np.float64)
    for part in np.array_split(np.arange(len(shared[0])), -(-len(shared[0]) * width // STEP)):
        for a, b in zip(first.tokens(shared[0][part]), second.tokens(shared[1][part]), strict=False):
            cross += a.T.astype(cross.dtype) @ b
    left, _, right = svd(cross, full_matrices=False, overwrite_a=True, check_finite=False)
    return left, right.T


def _single(matrix: Array) -> Array:
    return np.ascontiguousarray(matrix, dtype=np.float32)


def by_geometry(first: Stream, second: Stream) -> Alignment | None:
    """Align without a vocabulary, by what no rotation changes: how much of each row every layer's weights read.

    Tokens and hidden units, with all rows that belong to one, are compared by their ranks of r' M s, with M the Gram
    matrices of all routes of all layers; mutual nearest neighbours give a rotation, which is refined by neighbours in
    the turned rows. None where widths or numbers of layers differ, and for large layers, of which this would take too
    long. Exact for laundered copies; survives heavy tuning, averaging with a stranger and re-ordered tokens.
    """
    if first.width != second.width or len(first.blocks) != len(second.blocks):
        return None
    if first.large or second.large:
        return None
    (mine, grams), (theirs, others) = (_kinds(stream) for stream in (first, second))
    if [len(kind) for kind in mine] != [len(kind) for kind in theirs]:
        return None
    starts = []
    for one, other in zip(mine, theirs, strict=True):
        alike = _profile(one, grams) @ _profile(other, others).T
        starts += [_mutual(alike, a, b) for a, b in _facing(one, other)]
    turn, pairs = _turn(starts), [pair for kinds in zip(mine, theirs, strict=True) for pair in _facing(*kinds)]
    for _ in range(ROUNDS):
        before, turn = turn, _turn([_mutual(a @ turn @ b.T, a, b) for a, b in pairs])
        if np.abs(turn - before).max() < STILL:
            break
    same = np.eye(first.width, dtype=np.float32)
    return Alignment(_single(turn), same, (_single(turn), same))


def _facing(first: Rows, second: Rows) -> list[tuple[Array, Array]]:
    """Rows that a rotation maps onto each other; behind a gate up and down may have changed sign, and are left out."""
    return list(zip(first, second, strict=True))[: None if len(first) < 3 else 1]


def _kinds(stream: Stream) -> tuple[list[Rows], list[Array]]:
    """Rows of every kind, POOL at most of each: tables of tokens, routes of each layer; and all Gram matrices."""
    kinds, grams = [], []
    layers = (tuple(unit_rows(rows) for rows in stream.rows(layer)) for layer in range(len(stream.blocks)))
    for routes in (tuple(stream.tokens()), *layers):
        kinds.append(tuple(rows[:POOL].astype(np.float64) for rows in routes))
        grams += [np.asarray(rows.T @ rows, dtype=np.float64) for rows in routes]
    return [kind for kind in kinds if kind], grams


def _profile(routes: Rows, grams: Sequence[Array]) -> Array:
    """What no rotation and no sign changes of some rows r, s, …: normal scores of r' M r, |r' M s| and |r' s|.

    (rows, numbers), of length 1; ranks are those among all rows.
    """
    from scipy.special import ndtri

    read = [np.sum((rows @ gram) * rows, axis=1) for rows in routes for gram in grams]
    for a, b in combinations(routes, 2):
        read.append(np.abs(np.sum(a * b, axis=1)))
        read += [np.abs(np.sum((a @ gram) * b, axis=1)) for gram in grams]
    ranks = np.argsort(np.argsort(np.stack(read, axis=1), axis=0), axis=0)
    return unit_rows(ndtri((ranks + 0.5) / len(ranks)))


def _turn(crosses: Sequence[Array]) -> Array:
    """The rotation (width, width) nearest to the sum of cross Gram matrices."""
    left, _, right = np.linalg.svd(np.sum(crosses, axis=0))
    return np.asarray(left @ right)


def _mutual(alike: Array, first: Array, second: Array) -> Array:
    """The cross Gram matrix of the rows that are each other's nearest, the more the more alike they are."""
    there, back = alike.argmax(axis=1), alike.argmax(axis=0)
    own = np.flatnonzero(back[there] == np.arange(len(first)))
    weight = np.maximum(alike[own, there[own]], 0)[:, None] ** 4
    return np.asarray((first[own] * weight).T @ second[there[own]])
