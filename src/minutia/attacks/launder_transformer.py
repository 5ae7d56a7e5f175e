"""Laundering of transformers given as named tensors: the function stays, or nearly, and the weights look new.

All functions take the tensors of a Llama-type checkpoint by their usual names (``model.layers.0.mlp.up_proj.weight``,
``model.layers.0.mlp.experts.0.up_proj.weight``, matrices stored out x in) and return new ones; nothing is changed in
place.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import UsageError

Tensors = dict[str, Array]
_Change = Callable[[Array], Array]
EMBEDDING, HEAD, FINAL_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_EXPERT = re.compile(r"model\.layers\.\d+\.(mlp\.(?:experts\.\d+\.)?)up_proj\.weight")
_ROUTER = "mlp.gate.weight"


@dataclass(frozen=True)
class Heads:
    """How many heads ask and how many answer: grouped queries share a key and a value head.

    >>> Heads(4, 2).shared
    2
    """

    queries: int
    keys: int

    def __post_init__(self) -> None:
        if self.keys < 1 or self.queries % self.keys:
            raise UsageError(f"expected query heads to be a multiple of key heads, got {self.queries} and {self.keys}")

    @property
    def shared(self) -> int:
        """Query heads per key head."""
        return self.queries // self.keys


def layers(tensors: Mapping[str, Array]) -> int:
    """The number of layers; UsageError where there are none under the usual names.

    >>> layers({"model.layers.0.mlp.up_proj.weight": np.ones((2, 2))})
    1
    """
    found = {int(match[1]) for name in tensors if (match := _LAYER.fullmatch(name))}
    if not found or found != set(range(len(found))):
        raise UsageError("expected tensors named model.layers.0…, got none or gaps: rename the checkpoint's tensors")
    return len(found)


def fold_norms(tensors: Mapping[str, Array]) -> Tensors:
    """Multiply every norm's scale into the matrices that read it; a tied head is written out.

    >>> one = {"model.layers.0.mlp.up_proj.weight": np.ones((1, 2)), "model.norm.weight": np.array([2.0, 3.0]),
    ...        "model.embed_tokens.weight": np.ones((1, 2))}
    >>> fold_norms(one)["lm_head.weight"].tolist()
    [[2.0, 3.0]]
    """
    folded = {HEAD: tensors[EMBEDDING], **tensors}
    for at in range(layers(tensors)):
        for norm, readers in _reads(tensors, at).items():
            _fold(folded, norm, readers)
    _fold(folded, FINAL_NORM, [HEAD])
    return folded


def turn_stream(tensors: Mapping[str, Array], turn: Array) -> Tensors:
    """Multiply the residual stream by an orthogonal matrix (d, d); norms are folded before.

    >>> one = {"model.layers.0.mlp.up_proj.weight": np.array([[1.0, 2.0]]), "model.embed_tokens.weight": np.eye(2)}
    >>> turn_stream(one, np.array([[0.0, 1.0], [-1.0, 0.0]]))["model.layers.0.mlp.up_proj.weight"].tolist()
    [[-2.0, 1.0]]
    """
    turned = fold_norms(tensors)
    inward, outward = [EMBEDDING, HEAD], []
    for at in range(layers(tensors)):
        inward += [reader for readers in _reads(tensors, at).values() for reader in readers]
        outward += [_name(at, "self_attn.o_proj.weight")]
        outward += [_name(at, f"{home}down_proj.weight") for home in _mlps(tensors, at)]
    for name in inward:
        if name in turned:
            turned[name] = _like(turned[name] @ turn, turned[name])
    for name in outward:
        if name in turned:
            turned[name] = _like(turn.T @ turned[name], turned[name])
    return turned


def permute_stream(tensors: Mapping[str, Array], rng: np.random.Generator, *, signs: bool = True) -> Tensors:
    """Put the stream's coordinates into a random order, with random signs.

    >>> one = {"model.layers.0.mlp.up_proj.weight": np.eye(2), "model.embed_tokens.weight": np.eye(2)}
    >>> float(abs(permute_stream(one, np.random.default_rng(0))["lm_head.weight"]).sum())
    2.0
    """
    width = tensors[EMBEDDING].shape[1]
    turn = np.eye(width)[rng.permutation(width)]
    return turn_stream(tensors, turn * rng.choice([-1.0, 1.0], width) if signs else turn)


def rotate_stream(tensors: Mapping[str, Array], rng: np.random.Generator) -> Tensors:
    """Turn the stream by a Haar random rotation.

    >>> one = {"model.layers.0.mlp.up_proj.weight": np.eye(2), "model.embed_tokens.weight": np.eye(2)}
    >>> turned = rotate_stream(one, np.random.default_rng(0))["lm_head.weight"]
    >>> np.allclose(turned @ turned.T, np.eye(2))
    True
    """
    width = tensors[EMBEDDING].shape[1]
    turn, upper = np.linalg.qr(rng.normal(size=(width, width)))
    return turn_stream(tensors, turn * np.sign(np.diag(upper)))


def permute_units(tensors: Mapping[str, Array], rng: np.random.Generator) -> Tensors:
    """Put the hidden units of every MLP and of every expert into a random order."""
    changed = dict(tensors)
    for at, home in _all_mlps(tensors):
        order = rng.permutation(len(tensors[_name(at, f"{home}up_proj.weight")]))
        _by_unit(changed, _name(at, home), partial(np.take, indices=order, axis=0), ("gate", "up", "down"))
    return changed


def rescale_units(tensors: Mapping[str, Array], rng: np.random.Generator, strength: float = 4.0) -> Tensors:
    """Multiply each row of up by a factor of random sign, and divide the column of down: gate is left alone."""
    changed = dict(tensors)
    for at, home in _all_mlps(tensors):
        count = len(tensors[_name(at, f"{home}up_proj.weight")])
        by = (strength ** rng.uniform(-1, 1, count) * rng.choice([-1.0, 1.0], count))[:, None]
        _by_unit(changed, _name(at, home), partial(np.multiply, by), ("up",))
        _by_unit(changed, _name(at, home), partial(np.multiply, 1 / by), ("down",))
    return changed


def permute_experts(tensors: Mapping[str, Array], rng: np.random.Generator) -> Tensors:
    """Put the experts of every layer into a random order, with the rows of the router; nothing where there are none."""
    changed = dict(tensors)
    for at in range(layers(tensors)):
        homes = _mlps(tensors, at)
        if len(homes) < 2:
            continue
        order = rng.permutation(len(homes))
        for part in ("gate", "up", "down"):
            names = [_name(at, f"{home}{part}_proj.weight") for home in homes]
            changed |= {name: tensors[names[old]] for name, old in zip(names, order, strict=True) if name in tensors}
        if _name(at, _ROUTER) in tensors:
            changed[_name(at, _ROUTER)] = tensors[_name(at, _ROUTER)][order]
    return changed


def permute_heads(tensors: Mapping[str, Array], heads: Heads, rng: np.random.Generator) -> Tensors:
    """Put key heads into a random order, each with its query heads, and these among themselves."""
    changed = dict(tensors)
    for at in range(layers(tensors)):
        keys = rng.permutation(heads.keys)
        queries = np.concatenate([k * heads.shared + rng.permutation(heads.shared) for k in keys])
        for part, order in (("q", queries), ("k", keys), ("v", keys)):
            name = _name(at, f"self_attn.{part}_proj.weight")
            changed[name] = _by_head(changed[name], len(order))[order].reshape(changed[name].shape)
        name = _name(at, "self_attn.o_proj.weight")
        turned = _by_head(changed[name].T, heads.queries)[queries]
        changed[name] = np.ascontiguousarray(turned.reshape(changed[name].T.shape).T)
    return changed


def rescale_queries(
    tensors: Mapping[str, Array], heads: Heads, rng: np.random.Generator, strength: float = 3.0
) -> Tensors:
    """Turn and stretch every pair of query and key coordinates that rotary positions turn together."""
    changed = dict(tensors)
    for at in range(layers(tensors)):
        q, k = (_name(at, f"self_attn.{part}_proj.weight") for part in "qk")
        half = len(tensors[k]) // heads.keys // 2
        size = strength ** rng.uniform(-1, 1, (heads.keys, half, 1))
        factor = size * np.exp(2j * np.pi * rng.random(size.shape))
        changed[q] = _paired(changed[q], np.repeat(factor, heads.shared, axis=0))
        changed[k] = _paired(changed[k], 1 / factor.conj())
    return changed


def mix_values(tensors: Mapping[str, Array], heads: Heads, rng: np.random.Generator, strength: float = 2.0) -> Tensors:
    """Turn, stretch and turn each value head at random, and undo it in the output matrix."""
    changed = dict(tensors)
    for at in range(layers(tensors)):
        v, o = (_name(at, f"self_attn.{part}_proj.weight") for part in "vo")
        width = len(tensors[v]) // heads.keys
        turns = np.linalg.qr(rng.normal(size=(2, heads.keys, width, width)))[0]
        by = turns[0] * strength ** rng.uniform(-1, 1, (heads.keys, 1, width)) @ turns[1]
        changed[v] = _like((by @ _by_head(changed[v], heads.keys)).reshape(changed[v].shape), changed[v])
        back = np.repeat(np.linalg.inv(by).transpose(0, 2, 1), heads.shared, axis=0)
        turned = (back @ _by_head(changed[o].T, heads.queries)).reshape(changed[o].T.shape)
        changed[o] = _like(turned.T, changed[o])
    return changed


def reorder_vocabulary(tensors: Mapping[str, Array], order: Array) -> Tensors:
    """Give token ``order[i]`` the number i (vocabulary,), in the embedding and the head.

    >>> reorder_vocabulary({"model.embed_tokens.weight": np.array([[1], [2]])}, np.array([1, 0]))
    {'model.embed_tokens.weight': array([[2],
           [1]])}
    """
    return {name: value[order] if name in (EMBEDDING, HEAD) else value for name, value in tensors.items()}


def launder(tensors: Mapping[str, Array], heads: Heads, rng: np.random.Generator, *, rotate: bool = True) -> Tensors:
    """Everything at once that keeps the function: norms, stream, units, experts, heads, queries, values.

    Units are rescaled only behind a gate: an activation itself would not keep the function.
    """
    found = permute_units(rotate_stream(tensors, rng) if rotate else permute_stream(tensors, rng), rng)
    if _name(0, f"{_mlps(tensors, 0)[0]}gate_proj.weight") in tensors:
        found = rescale_units(found, rng)
    found = permute_experts(found, rng)
    return mix_values(rescale_queries(permute_heads(found, heads, rng), heads, rng), heads, rng)


def rounded(tensors: Mapping[str, Array], dtype: str = "bfloat16") -> Tensors:
    """Store every tensor in another number format (``bfloat16``, ``float16``) and read it back.

    >>> rounded({"w": np.array([1.001], np.float32)})["w"].tolist()
    [1.0]
    """
    import ml_dtypes

    formats = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float8_e4m3fn": ml_dtypes.float8_e4m3fn}
    if dtype not in formats:
        raise UsageError(f"expected one of {', '.join(formats)}, got {dtype!r}")
    return {name: _like(value.astype(formats[dtype]), value) for name, value in tensors.items()}


def quantised(tensors: Mapping[str, Array], bits: int = 8, block: int = 32) -> Tensors:
    """Round every matrix to whole numbers of ``bits`` bits, with one scale per ``block`` numbers of a row.

    >>> quantised({"w": np.array([[7.0, 3.4, -0.4]])}, bits=4)["w"].tolist()
    [[7.0, 3.0, -0.0]]
    """
    largest = 2 ** (bits - 1) - 1
    found = dict(tensors)
    for name, value in tensors.items():
        if value.ndim < 2:
            continue
        starts = np.arange(0, value.shape[-1], block)
        scale = np.maximum.reduceat(np.abs(value), starts, axis=-1) / largest
        scale = np.repeat(np.where(scale > 0, scale, 1.0), np.diff([*starts, value.shape[-1]]), axis=-1)
        found[name] = _like(np.round(value / scale) * scale, value)
    return found


def pruned(tensors: Mapping[str, Array], share: float = 0.5) -> Tensors:
    """Zero this share of every matrix within the layers, the smallest first.

    >>> pruned({"model.layers.0.mlp.up_proj.weight": np.array([[1.0, -3.0]])})
    {'model.layers.0.mlp.up_proj.weight': array([[ 0., -3.]])}
    """
    return {
        name: np.where(np.abs(value) > np.quantile(np.abs(value), share), value, 0).astype(value.dtype)
        if value.ndim > 1 and _LAYER.fullmatch(name)
        else value
        for name, value in tensors.items()
    }


def averaged(first: Mapping[str, Array], second: Mapping[str, Array], share: float = 0.5) -> Tensors:
    """``share`` of the first and the rest of the second, tensor by tensor; names and shapes must be equal.

    >>> averaged({"w": np.array([1.0])}, {"w": np.array([3.0])}, 0.25)["w"].tolist()
    [2.5]
    """
    if {n: w.shape for n, w in first.items()} != {n: w.shape for n, w in second.items()}:
        raise UsageError("expected two checkpoints with the same names and shapes to average, got others")
    return {name: _like(share * value + (1 - share) * second[name], value) for name, value in first.items()}


def take_layers(tensors: Mapping[str, Array], kept: Sequence[int]) -> Tensors:
    """The layers in this order, numbered anew: left out are dropped, named twice are duplicated.

    >>> list(take_layers({"model.layers.0.a": np.ones(1)}, [0, 0]))
    ['model.layers.0.a', 'model.layers.1.a']
    """
    count = layers(tensors)
    if not kept or not all(0 <= at < count for at in kept):
        raise UsageError(f"expected layers from 0 to {count - 1}, got {list(kept)}")
    found = {name: value for name, value in tensors.items() if not _LAYER.fullmatch(name)}
    for new, old in enumerate(kept):
        inside = ((match[2], value) for name, value in tensors.items() if (match := _LAYER.fullmatch(name)))
        found |= {_name(new, n): tensors[_name(old, n)] for n, _ in inside if _name(old, n) in tensors}
    return found


def merge_lora(
    tensors: Mapping[str, Array], adapters: Mapping[str, tuple[Array, Array]], scale: float = 1.0
) -> Tensors:
    """Add scale * B A to each matrix (out, in) that has an adapter A (rank, in), B (out, rank).

    >>> merge_lora({"w": np.zeros((2, 1))}, {"w": (np.array([[3.0]]), np.array([[1.0], [2.0]]))})["w"].tolist()
    [[3.0], [6.0]]
    """
    merged = dict(tensors)
    for name, (down, up) in adapters.items():
        merged[name] = _like(tensors[name] + scale * (up @ down), tensors[name])
    return merged


def _name(at: int, inside: str) -> str:
    return f"model.layers.{at}.{inside}"


def _like(value: Array, model: Array) -> Array:
    return np.ascontiguousarray(value, dtype=model.dtype)


def _fold(tensors: Tensors, norm: str, readers: Sequence[str]) -> None:
    """Fold one norm in place."""
    if norm not in tensors:
        return
    for reader in readers:
        if reader in tensors:
            tensors[reader] = tensors[reader] * tensors[norm]
    tensors[norm] = np.ones_like(tensors[norm])


def _mlps(tensors: Mapping[str, Array], at: int) -> list[str]:
    """Where the MLP of a layer, or each of its experts, is named."""
    inside = _name(at, "")
    return [match[1] for name in tensors if name.startswith(inside) and (match := _EXPERT.fullmatch(name))]


def _all_mlps(tensors: Mapping[str, Array]) -> list[tuple[int, str]]:
    return [(at, home) for at in range(layers(tensors)) for home in _mlps(tensors, at)]


def _reads(tensors: Mapping[str, Array], at: int) -> dict[str, list[str]]:
    """What reads the stream behind each norm of a layer."""
    attention = [f"self_attn.{part}_proj.weight" for part in "qkv"]
    inner = [f"{home}{part}_proj.weight" for home in _mlps(tensors, at) for part in ("gate", "up")]
    found = {"input_layernorm.weight": attention, "post_attention_layernorm.weight": [*inner, _ROUTER]}
    return {_name(at, norm): [_name(at, reader) for reader in readers] for norm, readers in found.items()}


def _by_unit(tensors: Tensors, home: str, change: _Change, parts: Sequence[str]) -> None:
    """Change the rows of gate and up, and the columns of down, in place."""
    for part in parts:
        name = f"{home}{part}_proj.weight"
        if name in tensors:
            rows = tensors[name].T if part == "down" else tensors[name]
            changed = change(rows)
            tensors[name] = _like(changed.T if part == "down" else changed, tensors[name])


def _by_head(rows: Array, heads: int) -> Array:
    """Rows as (heads, rows of a head, columns)."""
    return rows.reshape(heads, len(rows) // heads, -1)


def _paired(rows: Array, factor: Array) -> Array:
    """Multiply rows i and i + half of every head, taken as one complex number, by factors (heads, half, 1)."""
    by_head = _by_head(rows, len(factor))
    half = by_head.shape[1] // 2
    turned = (by_head[:, :half] + 1j * by_head[:, half:]) * factor
    return _like(np.concatenate([turned.real, turned.imag], axis=1).reshape(rows.shape), rows)
