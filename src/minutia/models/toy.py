"""Small honest models in numpy: a classifier with every kind of access, and a character language model."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.digest import Array, canonical_json, content_digest
from minutia.core.errors import FileError, ModelError, UsageError
from minutia.core.model import ModelCard, Plan, Steer
from minutia.core.probe import Content, Probe, ProbeSet
from minutia.core.units import Slot, Units
from minutia.models import one_line, read_bounded, split_spec, whole_number
from minutia.models.toy_training import Layer, as_probabilities, drawn, fit, forward, prepared, softmax

MAX_FILE_BYTES = 256 * 2**20
MAX_TOKENS = 2**16
OPTIONS = {"mlp": ("sizes", "seed", "weights"), "ngram": ("text", "order")}


class ToyClassifier:
    """A ReLU network in float32: inputs (n, …) are flattened to (n, inputs), outputs are logits (n, classes).

    ``weights`` are ``w0`` (inputs, hidden), ``b0`` (hidden,), ``w1``, …; other names or shapes: ModelError.

    >>> model = ToyClassifier({"w0": np.eye(2), "b0": np.zeros(2)})
    >>> model.ask(ProbeSet(("a",), np.array([[0.0, 1.0]]))).labels.tolist()
    [1]
    """

    access = Access.LABELS | Access.TOP_K | Access.SCORES | Access.LOGITS | Access.GRADIENTS | Access.FEATURES
    access |= Access.WEIGHTS | Access.TRAIN

    def __init__(self, weights: Mapping[str, Array], spec: str | None = None, card: ModelCard | None = None) -> None:
        self._layers = _layers(weights)
        digest = content_digest({"kind": "toy"}, dict(self.tensors()))
        self.spec = spec or f"toy:mlp?sizes={'-'.join(str(n) for n in self._sizes())}"
        self.card = card or ModelCard(digest, digest, self.spec)

    @classmethod
    def fresh(cls, sizes: Sequence[int], seed: int = 0) -> "ToyClassifier":
        """Draw an untrained network: ``sizes`` are inputs, hidden units, …, classes.

        >>> ToyClassifier.fresh((4, 3, 2), seed=1).card == ToyClassifier.fresh((4, 3, 2), seed=1).card
        True
        """
        if len(sizes) < 2 or min(sizes) < 1 or sizes[-1] < 2:
            raise UsageError(f"expected sizes such as 64-32-10 (inputs, hidden, classes), got {tuple(sizes)}")
        rng = np.random.default_rng(seed)
        spec = f"toy:mlp?sizes={'-'.join(map(str, sizes))}&seed={seed}"
        return cls(_named([drawn(rng, a, b) for a, b in pairwise(sizes)]), spec)

    def ask(self, probes: ProbeSet) -> Answers:
        """Logits and softmax scores of every probe."""
        logits = self._forward(self._flat(probes.array))[-1]
        return Answers.from_scores(softmax(logits), logits)

    def linearise(self, inputs: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Logits (n, classes) and the pull-back to the inputs, layer by layer backwards."""
        steps = self._forward(self._flat(inputs))

        def pull_back(slope: Array) -> Array:
            slope = np.asarray(slope, np.float32)
            for (w, _), before in zip(self._layers[:0:-1], steps[-2:0:-1], strict=True):
                slope = (slope @ w.T) * (before > 0)
            return (slope @ self._layers[0][0].T).reshape(inputs.shape)

        return steps[-1], pull_back

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Weights and biases from the input to the output, as copies."""
        yield from _named([(w.copy(), b.copy()) for w, b in self._layers]).items()

    def rebuilt(self, weights: Mapping[str, Array]) -> "ToyClassifier":
        """Copy the architecture with these weights; missing names keep their value, the root stays."""
        own = dict(self.tensors())
        for name, value in weights.items():
            if name not in own or own[name].shape != np.shape(value):
                raise ModelError(
                    f"expected a weight of {self.spec} ({', '.join(own)}), got {name!r} {np.shape(value)}: "
                    "rebuild a model with its own names and shapes"
                )
        return self._child({**own, **weights})

    def units(self) -> tuple[Units, ...]:
        """One group of units per hidden layer, h0, h1, …, each written by w0 and b0, … and read by the next layer."""
        hidden = [b.size for _, b in self._layers[:-1]]
        return tuple(
            Units(f"h{i}", count, (Slot(f"w{i}", 1), Slot(f"b{i}", 0)), (Slot(f"w{i + 1}", 0),))
            for i, count in enumerate(hidden)
        )

    def features(self, inputs: Array) -> dict[str, Array]:
        """Activations (n, count) of every hidden layer, by group.

        >>> model = ToyClassifier.fresh((4, 3, 2))
        >>> {name: values.shape for name, values in model.features(np.zeros((5, 4))).items()}
        {'h0': (5, 3)}
        """
        hidden = self._forward(self._flat(inputs))[1:-1]
        return {group.name: values for group, values in zip(self.units(), hidden, strict=True)}

    def trained(
        self, inputs: Array, targets: Array, plan: Plan, seed: int, *, steer: Steer | None = None
    ) -> "ToyClassifier":
        """Train a copy on minibatches; a full reset starts a new root, all else has this parent.

        ``targets`` are labels (n,) or probabilities (n, classes) at ``plan.temperature``. Weight decay is
        decoupled with Adam, part of the gradient with SGD. ``steer`` pulls one of the groups that ``units`` names.
        """
        rng = np.random.default_rng(seed)
        layers = prepared(self._layers, plan, rng)
        x, y = self._flat(inputs), as_probabilities(targets, len(inputs), layers[-1][1].size)
        weights = _named(fit(layers, x, y, plan, rng, steer))
        return ToyClassifier(weights, _architecture(weights)) if plan.reset == "everything" else self._child(weights)

    def opened(self, path: Path, spec: str) -> "ToyClassifier":
        """The same architecture with the weights of a file, as a model of its own."""
        found = ToyClassifier(_read_weights(path), spec)
        if found._sizes() != self._sizes():
            raise ModelError(
                f"expected weights of {self.spec}, got sizes {found._sizes()} in {path}: name their own sizes"
            )
        return found

    def _child(self, weights: Mapping[str, Array]) -> "ToyClassifier":
        child = ToyClassifier(weights, _architecture(weights))
        child.card = ModelCard(child.card.id, self.card.root, self.card.recipe, (self.card.id,))
        return child

    def _sizes(self) -> list[int]:
        return [self._layers[0][0].shape[0], *(w.shape[1] for w, _ in self._layers)]

    def _flat(self, inputs: Array) -> Array:
        needed, shape = self._layers[0][0].shape[0], np.shape(inputs)
        if len(shape) < 2 or int(np.prod(shape[1:])) != needed:
            raise ModelError(
                f"expected inputs of {needed} numbers each for {self.spec}, got an array of shape {shape}: "
                "give the model the input size it was built for"
            )
        return np.asarray(inputs, np.float32).reshape(shape[0], needed)

    def _forward(self, x: Array) -> list[Array]:
        return forward(self._layers, x)


class NgramModel:
    """A character language model: counts of order k, smoothed by ``delta`` pseudo-counts of the order below.

    P_k(c|h) = (count(hc) + d V P_{k-1}(c|h')) / (count(h) + d V) with V characters and h' = h without its
    first; below order 0 it is uniform. It writes ``max_tokens`` characters, or up to a given ``stop``.

    >>> model = NgramModel("abcabcabcabc", order=2)
    >>> probes = ProbeSet(("p",), ("ab",), {"sampling": {"temperature": 0, "max_tokens": 4}})
    >>> model.ask(probes).text
    ('cabc',)
    """

    access = Access.TEXT | Access.USAGE

    def __init__(self, text: str, order: int = 4, delta: float = 0.01, spec: str | None = None) -> None:
        self.order, self.delta = order, delta
        self._alphabet = sorted(set(text))
        if order < 0 or not delta > 0 or len(text) <= order or len(self._alphabet) ** (order + 1) >= 2**63:
            raise UsageError(
                f"expected a text longer than an order of 0 or more, got order {order}, delta {delta} and "
                f"{len(text)} characters, {len(self._alphabet)} different: choose a smaller order"
            )
        self._rank = {c: i for i, c in enumerate(self._alphabet)}
        codes = np.array([self._rank[c] for c in text], np.int64)
        self._counts = [self._table(codes, k) for k in range(order + 1)]
        digest = content_digest({"kind": "ngram", "order": order, "delta": delta, "text": text}, {})
        self.spec = spec or f"toy:{digest}"
        self.card = ModelCard(digest, digest, self.spec)

    def ask(self, probes: ProbeSet) -> Answers:
        """Write on from every prompt; the same model, seed, probe id and repeat give the same text."""
        written = [self._written(probe) for probe in probes]
        blank = Answers.from_labels(np.full(len(probes), -1), np.array([s for _, s in written], np.uint8))
        texts = tuple(text for text, _ in written)
        usage = [len(_prompt(p.content)) + len(t) for p, t in zip(probes, texts, strict=True)]
        return Answers(blank.status, blank.labels, text=texts, usage=np.array(usage, np.int64))

    def distribution(self, context: str) -> Array:
        """Probabilities (characters,) of what follows; characters the model never saw end the usable context.

        >>> NgramModel("aab", order=1, delta=1.0).distribution("b").round(2).tolist()
        [0.6, 0.4]
        """
        ranks = [self._rank.get(c, -1) for c in context[len(context) - self.order :]] if self.order else []
        known = ranks[max((i + 1 for i, r in enumerate(ranks) if r < 0), default=0) :]
        size = len(self._alphabet)
        p = np.full(size, 1 / size)
        for k in range(len(known) + 1):
            p = self._smoothed(k, known[len(known) - k :], p)
        return p

    def _table(self, codes: Array, k: int) -> tuple[Array, Array]:
        """Sorted codes of all runs of k + 1 characters, and how often each occurs."""
        length = len(codes) - k
        runs = sum(codes[i : i + length] * len(self._alphabet) ** (k - i) for i in range(k + 1))
        return np.unique(runs, return_counts=True)

    def _smoothed(self, k: int, context: Sequence[int], lower: Array) -> Array:
        size, (runs, counts) = len(self._alphabet), self._counts[k]
        code = sum(r * size ** (k - i) for i, r in enumerate(context))
        first, last = np.searchsorted(runs, [code, code + size])
        p = self.delta * size * lower
        p[runs[first:last] - code] += counts[first:last]
        return np.asarray(p / (counts[first:last].sum() + self.delta * size))

    def _written(self, probe: Probe) -> tuple[str, Status]:
        temperature, limit, stop, rng = _sampling(probe)
        prompt, text = _prompt(probe.content), ""
        while len(text) < limit:
            p = self.distribution((prompt + text)[-self.order :] if self.order else "")
            text += self._alphabet[_drawn_index(p, temperature, rng)]
            if stop and text.endswith(stop):
                return text.removesuffix(stop), Status.OK
        return text, Status.TRUNCATED if stop else Status.OK


def open_model(rest: str) -> ToyClassifier | NgramModel:
    """Open ``weights.safetensors``, ``mlp?sizes=64-32-10&seed=3`` (fresh) or ``ngram?text=FILE&order=4``.

    ``mlp?sizes=64-32-10&weights=FILE`` also checks that the file holds that architecture.

    >>> open_model("mlp?sizes=4-2&seed=1").spec
    'toy:mlp?sizes=4-2&seed=1'
    """
    target, options = split_spec(rest, OPTIONS.get(rest.partition("?")[0], ()))
    if target == "mlp":
        sizes = options.get("sizes", "64-32-10").split("-")
        if not all(s.isdecimal() and len(s) < 7 for s in sizes):
            raise UsageError(f"expected sizes such as 64-32-10 (inputs, hidden, classes), got {options['sizes']!r}")
        fresh = ToyClassifier.fresh([int(s) for s in sizes], whole_number(options, "seed", 0))
        return fresh if "weights" not in options else fresh.opened(Path(options["weights"]), f"toy:{rest}")
    if target == "ngram":
        if "text" not in options:
            raise UsageError("expected toy:ngram?text=FILE, got no text: name the file to learn from")
        text = read_bounded(Path(options["text"]), "a text", MAX_FILE_BYTES).decode("utf-8", "replace")
        return NgramModel(text, whole_number(options, "order", 4), spec=f"toy:{rest}")
    return ToyClassifier(_read_weights(Path(target)), f"toy:{rest}")


def _layers(weights: Mapping[str, Array]) -> list[Layer]:
    """Pairs (w, b) in order, after names and shapes have been checked."""
    arrays = {name: np.array(value, np.float32) for name, value in weights.items()}
    depth = len(arrays) // 2
    if not depth or set(arrays) != {f"{kind}{i}" for i in range(depth) for kind in "wb"}:
        raise ModelError(
            f"expected tensors w0, b0, w1, b1, …, got {sorted(arrays)[:8]}: rename them, or use another kind"
        )
    width = arrays["w0"].shape[0] if arrays["w0"].ndim == 2 else -1
    for i in range(depth):
        w, b = arrays[f"w{i}"], arrays[f"b{i}"]
        if w.ndim != 2 or w.shape[0] != width or b.shape != w.shape[1:] or not w.size:
            raise ModelError(
                f"expected w{i} of shape (inputs, outputs) and b{i} (outputs,) that fit the layer before, "
                f"got {w.shape} and {b.shape}: transpose or reorder the weights"
            )
        width = w.shape[1]
    return [(arrays[f"w{i}"], arrays[f"b{i}"]) for i in range(depth)]


def _architecture(weights: Mapping[str, Array]) -> str:
    """The spec of a network with these sizes: a copy is opened again by it and its weights."""
    sizes = [len(weights["w0"]), *(weights[f"b{i}"].size for i in range(len(weights) // 2))]
    return f"toy:mlp?sizes={'-'.join(map(str, sizes))}"


def _named(layers: Sequence[Layer]) -> dict[str, Array]:
    return {f"{kind}{i}": value for i, pair in enumerate(layers) for kind, value in zip("wb", pair, strict=True)}


def _sampling(probe: Probe) -> tuple[float, int, str, np.random.Generator]:
    """Temperature, length, stop text and a generator fixed by the seed, the probe id and the repeat."""
    asked: Mapping[str, Any] = {"temperature": 1.0, "max_tokens": 64, "stop": "", "seed": 0, **probe.sampling}
    temperature, limit = asked["temperature"], asked["max_tokens"]
    if not temperature >= 0 or not 0 <= limit <= MAX_TOKENS:
        raise UsageError(f"expected temperature >= 0 and at most {MAX_TOKENS} max_tokens, got {dict(probe.sampling)}")
    name = canonical_json([asked["seed"], probe.id, probe.repeat])
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return float(temperature), int(limit), str(asked["stop"]), np.random.default_rng(seed)


def _drawn_index(p: Array, temperature: float, rng: np.random.Generator) -> int:
    """Draw from p^(1/T), the most likely one at T = 0."""
    if temperature == 0:
        return int(p.argmax())
    heated = np.exp(np.log(p / p.max()) / temperature)
    return int(np.searchsorted(heated.cumsum(), rng.random() * heated.sum(), side="right").clip(max=len(p) - 1))


def _prompt(content: Content) -> str:
    """Join what is to be continued: a string, or the messages of a chat one below the other."""
    if isinstance(content, str):
        return content
    if isinstance(content, np.ndarray):
        raise ModelError("expected text probes for a language model, got arrays: use a method for language models")
    return "\n".join(str(message.get("content", "")) for message in content)


def _read_weights(path: Path) -> dict[str, Array]:
    """Read a safetensors file as data: nothing in it is executed."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = read_bounded(path, "safetensors weights", MAX_FILE_BYTES)
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise FileError(
            f"expected safetensors weights in {path}, got {one_line(error)!r}: the file is truncated or "
            "foreign; toy models are opened as weights.safetensors, mlp?sizes=… or ngram?text=…"
        ) from error
