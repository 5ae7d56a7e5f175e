"""Tensor roles: which tensors of a checkpoint are an MLP's gate, up and down, by names and shapes alone."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.tensors import Tensors

BLOCK = 2**22
"""Numbers that are read at once where columns of a large matrix are wanted."""
EMBEDDINGS = ("embed_tokens", "wte", "tok_embeddings", "token_embd", "word_embeddings", "embed_in", "emb", "shared")
HEADS = ("lm_head", "embed_out", "output", "head", "output_layer")
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "output_norm", "norm_f", "ln_out")
GATES = ("gate_proj", "ffn_gate", "ffn_gate_exps", "ffn_gate_shexp", "w1", "wi_0", "linear_v_gate")
UPS = (
    *("up_proj", "ffn_up", "ffn_up_exps", "ffn_up_shexp", "w3", "wi_1", "wi", "fc1", "fc_in", "c_fc", "lin1"),
    *("dense_h_to_4h", "linear1", "intermediate.dense", "ffn.key", "feed_forward.key"),
)
MERGED = ("gate_up_proj", "ffn_gate_up", "ffn_gate_up_exps", "w13")
DOWNS = (
    *("down_proj", "ffn_down", "ffn_down_exps", "ffn_down_shexp", "w2", "wo", "fc2", "fc_out", "lin2", "linear2"),
    *("dense_4h_to_h", "mlp.c_proj", "output.dense", "ffn.value", "feed_forward.value"),
)
NORMS = (
    *("pre_feedforward_layernorm", "ffn_norm", "ln_2", "ln2", "norm2", "mlp_norm", "layer_norm2", "final_layer_norm"),
    *("post_attention_layernorm", "norm_2", "input_layernorm", "ln_1", "ln1", "norm1", "attn_norm"),
)
ATTENTION = {
    "q": ("q_proj", "attn_q", "wq", "query", "attention.q", "receptance"),
    "k": ("k_proj", "attn_k", "wk", "attention.key", "self.key", "att.key", "key"),
    "v": ("v_proj", "attn_v", "wv", "attention.value", "self.value", "att.value", "value"),
    "qkv": ("qkv_proj", "attn_qkv", "query_key_value", "c_attn", "Wqkv", "in_proj_weight", "qkv"),
    "o": ("o_proj", "attn_output", "wo", "attn.c_proj", "attention.dense", "out_proj", "attention.output.dense"),
}
_NOT_MLP = re.compile(r"(^|\.)(attn|attention|self_attn|self_attention|att|cross_attn|crossattention|lora_\w+)(\.|$)")


@dataclass(frozen=True)
class Matrix:
    """A matrix (outputs, inputs) within a tensor: all of it, some outputs of a merged one, or one expert's.

    ``swapped`` says that it is stored (inputs, outputs), ``step`` that outputs of two merged matrices alternate.
    """

    tensor: str
    outputs: int
    inputs: int
    start: int = 0
    step: int = 1
    swapped: bool = False
    expert: int | None = None

    def rows(self, source: Tensors, wanted: Array | None = None) -> Array:
        """Outputs (wanted or all, inputs) as float32; only these are read where they are rows of the tensor."""
        places = self.start + self.step * (np.arange(self.outputs) if wanted is None else np.asarray(wanted))
        return self._columns(source, places) if self.swapped else self._rows(source, places)

    def columns(self, source: Tensors, wanted: Array | None = None) -> Array:
        """Inputs (wanted or all, outputs) as float32: what reads each input."""
        places = np.arange(self.inputs) if wanted is None else np.asarray(wanted)
        outputs = slice(self.start, self.start + self.step * self.outputs, self.step)
        if self.swapped:
            return self._rows(source, places)[:, outputs]
        found = np.empty((len(places), self.outputs), np.float32)
        for first, block in self._blocks(source):
            lines = np.arange(first, first + len(block))
            own = (lines >= self.start) & ((lines - self.start) % self.step == 0)
            at = (lines[own] - self.start) // self.step
            own[own] = at < self.outputs
            found[:, at[at < self.outputs]] = block[own][:, places].T
        return found

    def _rows(self, source: Tensors, places: Array) -> Array:
        if self.expert is None:
            return source.read(self.tensor, places)
        return np.asarray(source.read(self.tensor, slice(self.expert, self.expert + 1))[0][places])

    def _columns(self, source: Tensors, places: Array) -> Array:
        found = np.empty((len(places), self.inputs), np.float32)
        for first, block in self._blocks(source):
            found[:, first : first + len(block)] = block[:, places].T
        return found

    def _blocks(self, source: Tensors) -> Iterator[tuple[int, Array]]:
        """The stored matrix from the top, a stretch of rows at a time."""
        if self.expert is not None:
            yield 0, source.read(self.tensor, slice(self.expert, self.expert + 1))[0]
            return
        height, width = source.info(self.tensor).shape
        step = max(1, BLOCK // max(width, 1))
        for first in range(0, height, step):
            yield first, source.read(self.tensor, slice(first, min(first + step, height)))


@dataclass(frozen=True)
class Mlp:
    """One MLP, or one expert: ``units`` hidden units that up (and gate) make and down reads; ``norm`` comes before."""

    layer: int
    up: Matrix
    down: Matrix
    gate: Matrix | None = None
    norm: str | None = None
    centred: bool = False

    @property
    def units(self) -> int:
        """Hidden units."""
        return self.up.outputs


@dataclass(frozen=True)
class Group:
    """Hidden units of a network that is no transformer, by the tensor that makes them.

    Units lie along ``axis``; ``blocks`` of them are stored one behind the other (the gates of a recurrent layer).
    """

    tensor: str
    units: int
    axis: int = 0
    blocks: int = 1

    def rows(self, source: Tensors) -> Array:
        """Incoming weights (units, everything) as float32."""
        stored = np.moveaxis(source.read(self.tensor), self.axis, 0)
        return np.concatenate(stored.reshape(self.blocks, self.units, -1), axis=1)


@dataclass(frozen=True)
class Roles:
    """What is what in a checkpoint; without MLPs of a transformer, ``groups`` of hidden units instead.

    ``embedding`` is (vocabulary, width); ``head`` is the same tensor's name where it is tied. ``attention`` holds per
    layer the matrices q, k, v and o, or qkv where they are merged; with grouped queries k and v have fewer outputs.
    """

    width: int = 0
    embedding: Matrix | None = None
    head: Matrix | None = None
    final_norm: str | None = None
    mlps: tuple[Mlp, ...] = ()
    attention: Mapping[int, Mapping[str, Matrix]] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers that have an MLP."""
        return tuple(sorted({mlp.layer for mlp in self.mlps}))

    @property
    def gated(self) -> bool:
        """Whether hidden units are the product of a gate and a value."""
        return bool(self.mlps) and all(mlp.gate is not None for mlp in self.mlps)


def roles(source: Tensors, name: str = "the checkpoint") -> Roles:
    """Read the roles from names and shapes; no tensor is read. ``name`` is what errors call it.

    UsageError where there is neither a transformer's MLP nor any other weight matrix.

    >>> names = {"model.embed_tokens.weight": (9, 4), "model.layers.0.mlp.up_proj.weight": (6, 4),
    ...          "model.layers.0.mlp.gate_proj.weight": (6, 4), "model.layers.0.mlp.down_proj.weight": (4, 6)}
    >>> from minutia.core.tensors import Arrays
    >>> found = roles(Arrays({name: np.zeros(shape) for name, shape in names.items()}))
    >>> found.layers, found.gated, found.mlps[0].units, found.head == found.embedding
    ((0,), True, 6, True)
    """
    shapes = {name: tuple(source.info(name).shape) for name in source.names}
    outside = {_stem(name): name for name in shapes if _place(name) is None}
    embedding = _table(outside, shapes, EMBEDDINGS)
    layers = _by_layer(shapes)
    width = embedding.inputs if embedding else _common_width(layers, shapes)
    mlps = tuple(mlp for at, inside in enumerate(layers) for mlp in _mlps(at, inside, shapes, width))
    if not mlps:
        groups = chain_groups(shapes)
        if not groups:
            raise UsageError(f"expected weight matrices of hidden units in {name}, got none: compare whole models")
        return Roles(groups=groups)
    head = _table(outside, shapes, HEADS) if embedding else None
    final = next(
        (outside[s] for s in outside if s.split(".")[-1] in FINAL_NORMS and shapes[outside[s]] == (width,)), ""
    )
    attention = {at: _attention(inside, shapes) for at, inside in enumerate(layers)}
    return Roles(width, embedding, head or embedding, final or None, mlps, attention)


def _stem(name: str) -> str:
    """A name without what says that it is a weight."""
    return re.sub(r"[./](weight|kernel|w)$", "", name).replace("/", ".")


def _place(name: str) -> tuple[str, int] | None:
    """The stack and the number of the layer that a tensor belongs to."""
    match = re.match(r"(?P<stack>(?:[^.\d/][^./]*[./])*)(?P<layer>\d+)[./]", name)
    return (match["stack"], int(match["layer"])) if match else None


def _by_layer(shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, str]]:
    """For each layer its tensors, by their stems within it."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for name in shapes:
        if (place := _place(name)) is not None:
            inside = _stem(re.sub(r"^(?:[^.\d/][^./]*[./])*\d+[./]", "", name))
            found.setdefault(place, {})[inside] = name
    stacks = {stack: at for at, stack in enumerate(dict.fromkeys(stack for stack, _ in found))}
    return [found[place] for place in sorted(found, key=lambda p: (stacks[p[0]], p[1]))]


def _common_width(layers: Iterable[Mapping[str, str]], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The width of the stream where there is no embedding: the commonest length of a norm."""
    lengths = [shapes[n][0] for inside in layers for n in inside.values() if len(shapes[n]) == 1 and "norm" in n]
    return max(set(lengths), key=lengths.count, default=0)


def _ends(stem: str, endings: Iterable[str]) -> bool:
    return any(stem == ending or stem.endswith("." + ending) for ending in endings)


def _table(outside: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], endings: Sequence[str]) -> Matrix | None:
    """A matrix of one row per token."""
    for stem, name in outside.items():
        if _ends(stem, endings) and len(shapes[name]) == 2:
            return Matrix(name, shapes[name][0], shapes[name][1])
    return None


def _matrices(
    name: str, shapes: Mapping[str, tuple[int, ...]], width: int, *, reads: bool, expert: int | None = None
) -> list[Matrix]:
    """A tensor as a matrix that reads the stream (or writes it), or as one per expert."""
    shape = shapes[name]
    if len(shape) == 3:
        flat = {name: shape[1:]}
        return [m for e in range(shape[0]) for m in _matrices(name, flat, width, reads=reads, expert=e)]
    if len(shape) != 2 or width not in shape:
        return []
    swapped = shape[1 if reads else 0] != width
    outputs, inputs = shape[::-1] if swapped else shape
    return [Matrix(name, outputs, inputs, swapped=swapped, expert=expert)]


def _mlps(at: int, inside: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], width: int) -> list[Mlp]:
    """The MLP of a layer, or its experts."""
    sets: dict[str, dict[str, str]] = {}
    for role, endings in (("up", UPS), ("gate", GATES), ("both", MERGED), ("down", DOWNS)):
        for stem, name in inside.items():
            ending = next((e for e in endings if _ends(stem, (e,))), None)
            if ending is not None and not (_NOT_MLP.search(stem) and not stem.startswith(("ffn", "feed_forward"))):
                home = stem.removesuffix(ending.split(".")[-1])
                home = re.sub(r"^(intermediate|output)\.$", "", home)
                kind = re.search(r"_(exps|shexp)$", ending)
                held = sets.setdefault(home + (kind[1] if kind else ""), {})
                held.setdefault(role, name)
                if role == "both" and stem + "_bias" in inside:  # the only known layout with biases alternates
                    held["alternating"] = name
    norm = next((inside[s] for e in NORMS for s in inside if _ends(s, (e,)) and shapes[inside[s]] == (width,)), None)
    centred = norm is not None and re.sub(r"weight$", "bias", norm) in shapes and norm.endswith("weight")
    return [
        Mlp(at, up, down, gate, norm, centred)
        for found in sets.values()
        for up, down, gate in _triples(found, shapes, width)
    ]


def _triples(
    found: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], width: int
) -> Iterator[tuple[Matrix, Matrix, Matrix | None]]:
    """Up, down and gate, once per expert; a matrix of twice as many outputs as down has inputs is gate and up."""
    if "up" not in found and "both" not in found and "gate" in found:  # w1 and w2 without w3: not gated
        found = {**{k: v for k, v in found.items() if k != "gate"}, "up": found["gate"]}
    if "down" not in found or not {"up", "both"} & set(found):
        return
    ups = _matrices(found.get("both", found.get("up", "")), shapes, width, reads=True)
    downs = _matrices(found["down"], shapes, width, reads=False)
    gates = _matrices(found["gate"], shapes, width, reads=True) if "gate" in found and "both" not in found else []
    for place, (up, down) in enumerate(zip(ups, downs, strict=False)):
        if up.outputs == 2 * down.inputs:
            half, step = down.inputs, 2 if "alternating" in found else 1
            gate = Matrix(up.tensor, half, up.inputs, 0, step, up.swapped, up.expert)
            yield replace(gate, start=half if step == 1 else 1), down, gate
        elif up.outputs == down.inputs:
            yield up, down, gates[place] if place < len(gates) and gates[place].outputs == up.outputs else None


def _attention(inside: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Matrix]:
    """The matrices of a layer's attention, as far as names tell."""
    found: dict[str, Matrix] = {}
    for stem, name in inside.items():
        if len(shapes[name]) != 2 or not (_NOT_MLP.search(stem) or stem.startswith("attn_")):
            continue
        role = next((r for r, endings in ATTENTION.items() if _ends(stem, endings)), None)
        if role is not None:
            swapped = stem.endswith(("c_attn", "c_proj")) and shapes[name][0] < shapes[name][1]
            outputs, inputs = shapes[name][::-1] if swapped else shapes[name]
            found.setdefault(role, Matrix(name, outputs, inputs, swapped=swapped))
    return found


def chain_groups(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Group, ...]:
    """Hidden units of a network that is no transformer: of every layer but those that make the output.

    A bias beside a weight tells which of its axes are the outputs; a matrix ``recurrent`` or ``weight_hh`` tells how
    many gates are stored one behind the other. What no other tensor reads, or has as many units as the input has
    channels, is an output, whose order means something; square transposed convolutions are left out.

    >>> [g.units for g in chain_groups({"0.weight": (8, 3), "2.weight": (6, 8), "4.weight": (2, 6)})]
    [8, 6]
    """
    found = weight_matrices(shapes)
    read = {inputs for _, _, _, inputs, _ in found}
    first = found[0][3] if found else 0
    kept = []
    for at, (name, axis, units, _, blocks) in enumerate(found):
        whole = {r // units for r in read if r % units == 0}
        others = [i for j, (_, _, _, i, _) in enumerate(found) if j != at]
        used = any(i == units or (i % units == 0 and i > units and len(whole) > 0) for i in others)
        guess = re.search(r"deconv|transp", name, re.IGNORECASE) and len(set(shapes[name][:2])) == 1
        named = _stem(name).split(".")[-1].lower()
        output = named in ("fc", "classifier", "linear", "head", "logits") or named.endswith("output")
        if used and units > 4 and units != first and not guess and not output and at + 1 < len(found):
            kept.append(Group(name, units, axis, blocks))
    return tuple(kept)


def weight_matrices(shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, int, int, int, int]]:
    """Weights in natural order of their names: name, axis of the units, units, inputs, and gates stored in a row.

    >>> weight_matrices({"0.weight": (8, 3), "0.bias": (8,)})
    [('0.weight', 0, 8, 3, 1)]
    """
    weights = {n: s for n, s in shapes.items() if len(s) in (2, 3, 4, 5) and min(s) > 0}
    plain = {n: s for n, s in weights.items() if not re.search(r"recurrent|weight_hh|hidden_to_hidden", n)}
    return [(n, *_oriented(n, s, shapes)) for n, s in sorted(plain.items(), key=lambda item: _natural(item[0]))]


def _oriented(name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int, int]:
    """The axis of the units, their number, the inputs, and the gates stored one behind the other."""
    bias = shapes.get(re.sub(r"(weight|kernel)(\w*)$", r"bias\2", name), (0,))
    axis = 1 if bias[0] == shape[1] != shape[0] else 0
    outputs, inputs = shape[axis], shape[1 - axis]
    for other in (name.replace("weight_ih", "weight_hh"), re.sub(r"(weight|kernel)$", "recurrent", name)):
        if other != name and other in shapes:
            units = min(shapes[other])
            if outputs % units == 0:
                return axis, units, inputs, outputs // units
    return axis, outputs, inputs, 1


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key under which 2 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
