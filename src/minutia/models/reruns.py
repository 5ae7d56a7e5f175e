"""One model run in other ways that leave it unchanged: batches, threads, runtimes, and number formats if allowed."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np

from minutia.core.answers import Answers
from minutia.core.digest import Array, canonical_json, sha256
from minutia.core.errors import UsageError
from minutia.core.model import Model, ModelCard, WeightModel
from minutia.core.probe import ProbeSet, numbered
from minutia.models.onnx import OnnxModel
from minutia.models.torch import TorchModel

FORMATS = ("half", "bfloat16", "int8", "int4")
"""Number formats that an owner may list as benign."""
RUNS = 180
"""Benign runs by default: a p-value of 0.01 needs 99."""
MOST_ROWS, MOST_BEFORE = 128, 48
"""Libraries choose another algorithm from some batch size on: NNPACK's fast convolutions begin at 16 rows."""
THREADS = (1, 2)
"""More threads than cores wait for one another; sums are split in the same way by any number of them but one."""
FLOATS = {"half": "float16", "bfloat16": "bfloat16"}


class Rerun:
    """The same model asked in batches of ``rows``, its questions after ``before`` rows of ``filler`` (n, *shape).

    ``way`` says in words how it runs and becomes the recipe of its card; ``around`` makes a context for each call.

    >>> from minutia.models.toy import ToyClassifier
    >>> toy, probes = ToyClassifier.fresh((2, 3)), ProbeSet(("a", "b"), np.eye(2))
    >>> again = Rerun(toy, "in numpy", rows=1, before=1, filler=np.ones((1, 2)))
    >>> bool((again.ask(probes).labels == toy.ask(probes).labels).all()), again.card.recipe
    (True, 'in numpy')
    """

    def __init__(
        self, model: Model, way: str, *, rows: int, before: int, filler: Array, around: Any = nullcontext
    ) -> None:
        self.spec, self.access = model.spec, model.access
        name = sha256(canonical_json([model.card.id, way, rows, before]).encode())
        self.card = ModelCard(name, model.card.root, way, (model.card.id,))
        self._model, self._rows, self._before, self._filler, self._around = model, rows, before, filler, around

    def ask(self, probes: ProbeSet) -> Answers:
        """Answers of all probes; those of the filler are dropped."""
        content = np.asarray(probes.array, dtype=np.float32)
        if self._before:
            shift = np.resize(np.arange(len(self._filler)), self._before)
            content = np.concatenate([self._filler[shift], content]).astype(np.float32)
        parts = []
        with self._around():
            for start in range(0, len(content), self._rows):
                part = content[start : start + self._rows]
                parts.append(self._model.ask(numbered(part, probes.protocol)))
        return Answers.joined(parts).take(np.arange(self._before, len(content)))


def reruns(
    model: Model, filler: Array, rng: np.random.Generator, *, allow: Sequence[str] = (), count: int = RUNS
) -> list[Rerun]:
    """``count`` benign runs, shared out evenly over all ways in which this model can run here.

    A torch model runs with several threads, without oneDNN, and exported, in ONNX Runtime; an ONNX model with several
    threads. ``allow`` names number formats that are benign as well: weights rounded to them, and for torch also
    computing in half precision. Raises UsageError for a format that is unknown or a model whose weights are closed.
    """
    unknown = [name for name in allow if name not in FORMATS]
    if unknown:
        raise UsageError(f"expected number formats ({', '.join(FORMATS)}), got {unknown[0]!r}: see --allow")
    if allow and not isinstance(model, WeightModel):
        raise UsageError(f"expected a model with open weights to round to {allow[0]}, got {model.spec}")
    ways = [*_ways(model, filler), *(way for name in allow for way in _in_format(model, name))]
    made = []
    for turn in range(count):
        name, base, around = ways[turn % len(ways)]
        rows = round(float(np.exp(rng.uniform(0, np.log(MOST_ROWS)))))
        before = int(rng.integers(MOST_BEFORE + 1)) if len(filler) and rng.random() < 0.7 else 0
        made.append(Rerun(base, name, rows=rows, before=before, filler=filler, around=around))
    return made


Way = tuple[str, Model, Any]


def _ways(model: Model, filler: Array) -> Iterator[Way]:
    """Names, models and contexts in float32."""
    if isinstance(model, TorchModel):
        for threads in THREADS:
            yield f"in torch with {_named(threads)}", model, lambda n=threads: _threads(n)
        yield "in torch without oneDNN", model, _without_onednn
        exported = as_onnx(model, filler[:2])
        if exported is not None:
            for threads in THREADS:
                yield f"in ONNX Runtime with {_named(threads)}", OnnxModel(exported, threads=threads), nullcontext
    elif isinstance(model, OnnxModel):
        for threads in THREADS:
            yield f"in ONNX Runtime with {_named(threads)}", model.with_threads(threads), nullcontext
    else:
        yield "as it is", model, nullcontext


def _named(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def as_onnx(model: TorchModel, inputs: Array) -> bytes | None:
    """The model as an ONNX file with a free batch size; None where it cannot be exported or run."""
    import torch

    buffer, axes = io.BytesIO(), {"inputs": {0: "n"}, "outputs": {0: "n"}}
    with suppress(Exception), warnings.catch_warnings():  # whatever the exporter of this version trips over
        warnings.simplefilter("ignore")
        names: dict[str, Any] = {
            "dynamo": False,
            "f": buffer,
            "input_names": ["inputs"],
            "output_names": ["outputs"],
            "dynamic_axes": axes,
        }
        # The older exporter needs nothing but the onnx package.
        torch.onnx.export(model.module, (torch.from_numpy(inputs),), **names)
        OnnxModel(buffer.getvalue())
        return buffer.getvalue()
    return None


def _in_format(model: Model, name: str) -> Iterator[Way]:
    """Weights rounded to a format, and for torch also computed in half precision."""
    assert isinstance(model, WeightModel)
    if name not in FLOATS:
        bits = int(name.removeprefix("int"))
        for grain, axes in (("tensor", False), ("channel", True)):
            weights = {n: _integers(w, bits, axes) for n, w in model.tensors() if w.ndim > 1}
            yield f"with weights in {name} per {grain}", model.rebuilt(weights), nullcontext
        return
    import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy

    rounded = {n: w.astype(np.dtype(FLOATS[name])).astype(np.float32) for n, w in model.tensors()}
    yield f"with weights in {name}", model.rebuilt(rounded), nullcontext
    if isinstance(model, TorchModel):
        yield f"computed in {name}", _cast(model, FLOATS[name]), nullcontext


def _integers(weights: Array, bits: int, per_channel: bool) -> Array:
    """Weights at the nearest of 2^bits - 1 symmetric levels, per tensor or per output channel (the first axis)."""
    axes = tuple(range(1, weights.ndim)) if per_channel else None
    largest = np.abs(weights).max(axis=axes, keepdims=True)
    step = np.maximum(largest, 1e-12) / (2 ** (bits - 1) - 1)
    return np.asarray(np.rint(weights / step) * step, dtype=np.float32)


def _cast(model: TorchModel, dtype: str) -> TorchModel:
    """The module in another float type, from float32 to float32."""
    import copy

    import torch

    class Cast(torch.nn.Module):
        """Rounds what goes in, and widens what comes out."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(model.module).to(getattr(torch, dtype))

        def forward(self, x: "torch.Tensor") -> "torch.Tensor":
            return self.inner(x.to(getattr(torch, dtype))).float()

    return TorchModel(Cast(), model.spec, model.card)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _without_onednn() -> Iterator[None]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions warn of another backend when this one is switched
        with torch.backends.mkldnn.flags(enabled=False):
            yield
