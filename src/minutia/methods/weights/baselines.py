"""Weak baselines: likeness of two checkpoints without a null, shown beside a comparison and never deciding."""

from collections.abc import Sequence

import numpy as np

from minutia.core.digest import Array
from minutia.methods.weights.roles import Matrix
from minutia.methods.weights.streams import Stream, shared_tokens

ROWS = 64
"""Rows of each matrix that are read."""
TOKENS = 256
"""Shared tokens by which invariants and embeddings are compared."""
Tokens = tuple[Sequence[str], Sequence[str]]


def baselines(
    first: Stream, second: Stream, tokens: Tokens | None, rng: np.random.Generator
) -> tuple[tuple[str, float | None], ...]:
    """Likeness from -1 to 1 by each measure; None where it cannot be taken. ``rng`` draws rows and tokens.

    They have no null: two trainings of one recipe are alike by most of them.

    >>> from minutia.core.tensors import Arrays
    >>> one = {"wte.weight": np.eye(9, 4), "h.0.mlp.fc1.weight": np.eye(6, 4), "h.0.mlp.fc2.weight": np.eye(4, 6)}
    >>> stream = Stream.of(Arrays(one), "one")
    >>> found = dict(baselines(stream, stream, None, np.random.default_rng(0)))
    >>> round(found["cosine of weights"], 3), found["attention deviations"]
    (1.0, None)
    """
    shared = shared_tokens(first, second, tokens, rng) if first.roles.embedding and second.roles.embedding else None
    if shared is not None:
        shared = (shared[0][:TOKENS], shared[1][:TOKENS])
    return (
        ("cosine of weights", weight_cosine(first, second, rng)),
        ("attention deviations", attention_deviations(first, second, rng)),
        ("CKA of embeddings", None if shared is None else embedding_cka(first, second, shared)),
        ("invariant terms", None if shared is None else invariant_terms(first, second, shared)),
    )


def weight_cosine(first: Stream, second: Stream, rng: np.random.Generator) -> float | None:
    """Cosine over rows, drawn with ``rng``, of all matrices that have one name and shape in both.

    Two children of one public base have it, and a permuted copy has not.
    """
    sums = np.zeros(3)
    for name in first.source.names:
        shape = first.source.info(name).shape
        if len(shape) < 2 or name not in second.source.names or second.source.info(name).shape != shape:
            continue
        rows = np.sort(rng.permutation(shape[0])[:ROWS])
        mine, theirs = (stream.source.read(name, rows).ravel().astype(np.float64) for stream in (first, second))
        sums += mine @ theirs, mine @ mine, theirs @ theirs
    return float(sums[0] / np.sqrt(sums[1] * sums[2])) if sums[1] * sums[2] > 0 else None


def attention_deviations(first: Stream, second: Stream, rng: np.random.Generator) -> float | None:
    """Correlation of the standard deviations of query, key, value and output matrices over layers.

    Source: Yoon, Chun, Allouah, Sohn, "Intrinsic Fingerprint of LLMs", arXiv 2507.03014, 2025.
    """
    depth = min(len(first.roles.attention), len(second.roles.attention))
    profiles: list[list[Array]] = [[], []]
    for part in ("q", "k", "v", "o"):
        sides = [[layer.get(part) for layer in stream.roles.attention.values()][:depth] for stream in (first, second)]
        found = [[m for m in side if m is not None] for side in sides]
        if depth < 3 or any(len(side) < depth for side in found):
            continue
        for stream, side, profile in zip((first, second), found, profiles, strict=True):
            spread = np.array([_sample(stream, matrix, rng).std() for matrix in side])
            profile.append((spread - spread.mean()) / (spread.std() or 1.0))
    if not profiles[0]:
        return None
    return _cosine(np.concatenate(profiles[0]), np.concatenate(profiles[1]))


def embedding_cka(first: Stream, second: Stream, shared: tuple[Array, Array]) -> float:
    """Linear CKA of the embeddings of shared tokens: 1 where they are alike up to rotation and scale.

    Source: Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019.
    """
    grams = []
    for stream, own in zip((first, second), shared, strict=True):
        table = stream.tokens(own)[0].astype(np.float64)
        table = table - table.mean(0)
        grams.append((table @ table.T).ravel())
    return _cosine(grams[0], grams[1])


def invariant_terms(first: Stream, second: Stream, shared: tuple[Array, Array]) -> float | None:
    """Mean cosine of the invariant terms X Wq' Wk X', X Wv' Wo' X' and X Wup' Wdown' X' of the last common layers.

    X holds the embeddings of shared tokens. Terms keep under rotation of the stream and under any change within heads
    and units. Attention is left out where it is merged, or where heads answer for several that ask.

    Source: Zeng, Wang, Hu, Xu, Zhou, Wang, Yu, Lin, "HuRef: Human-Readable Fingerprint for Large Language Models",
    NeurIPS 2024, arXiv 2312.04828 (invariant content similarity; here of two layers at the same distance from the end).
    """
    found = []
    for back in range(1, 1 + min(2, len(first.blocks), len(second.blocks))):
        mine, theirs = (_terms(stream, own, back) for stream, own in zip((first, second), shared, strict=True))
        found += [_cosine(mine[name].ravel(), theirs[name].ravel()) for name in mine if name in theirs]
    return float(np.mean(found)) if found else None


def _terms(stream: Stream, tokens: Array, back: int) -> dict[str, Array]:
    """The invariant terms (tokens, tokens) of the layer ``back`` from the end."""
    assert stream.roles.embedding is not None
    table = stream.roles.embedding.rows(stream.source, tokens)
    mlp, found = stream.blocks[-back][0], {}
    up, down = mlp.up.rows(stream.source), mlp.down.columns(stream.source)
    found["mlp"] = (table @ up.T) @ (down @ table.T)
    parts = list(stream.roles.attention.values())[-back] if stream.roles.attention else {}
    for name, (into, out) in {"qk": ("q", "k"), "vo": ("v", "o")}.items():
        if into in parts and out in parts:
            left = table @ parts[into].rows(stream.source).T
            right = parts[out].rows(stream.source) if name == "qk" else parts[out].columns(stream.source)
            if left.shape[1] == len(right):
                found[name] = left @ (right @ table.T)
    return found


def _sample(stream: Stream, matrix: Matrix, rng: np.random.Generator) -> Array:
    return matrix.rows(stream.source, np.sort(rng.permutation(matrix.outputs)[:ROWS]))


def _cosine(first: Array, second: Array) -> float:
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size > 0 else 0.0
