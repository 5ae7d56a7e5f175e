"""ONNX classifiers on the CPU; a suspect's file is hostile: read as data, bounded, never extended by code."""

import contextlib
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.digest import Array, canonical_json, sha256
from minutia.core.errors import MissingExtraError, ModelError
from minutia.core.model import ModelCard
from minutia.core.probe import ProbeSet
from minutia.models import one_line, read_bounded, split_spec, whole_number
from minutia.models.toy import softmax

MAX_FILE_BYTES = 2**31 - 1
"""The limit of the format itself; larger weights lie in external files."""
MAX_EXTERNAL_BYTES = 64 * 2**30
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operators that are compiled into onnxruntime; every other domain would need foreign code."""
INPUTS = {"float": np.float32, "double": np.float64, "float16": np.float16, "uint8": np.uint8}
SCORES = ("tensor(float)", "tensor(double)", "tensor(float16)")
LABELS = ("tensor(int64)", "tensor(int32)")
FLOATS = (1, 10, 11, 16)
"""TensorProto types float, float16, double and bfloat16."""
MAX_THREADS = 1024
PILOT_ROWS, PILOT_SIDE, PILOT_SIZE = 4, 32, 2**22


class OnnxModel:
    """A classifier (n, *shape) -> scores or logits (n, classes), or labels (n,), from a file or its bytes.

    Rows that are non-negative and sum to 1 are scores, others logits. Inputs of type uint8 get round(255 x)
    of probes in [0, 1]. Of several outputs the first float tensor is used, else integer labels (so the labels
    of a scikit-learn export whose probabilities are maps). A fixed batch is filled up with the last row.
    ``files`` are the file and those of its weights outside: together the whole model.

    >>> from onnx import TensorProto, helper
    >>> x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 2]) for n in "xy")
    >>> graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    >>> opset = helper.make_opsetid("", 13)
    >>> model = OnnxModel(helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString())
    >>> model.ask(ProbeSet(("a",), np.array([[0.0, 1.0]]))).labels.tolist()
    [0]
    """

    def __init__(
        self, source: str | Path | bytes, *, threads: int = 1, spec: str = "", card: ModelCard | None = None
    ) -> None:
        self._source = source
        self._folder = None if isinstance(source, bytes) else Path(source).parent
        self._data = source if isinstance(source, bytes) else read_bounded(Path(source), "an ONNX file", MAX_FILE_BYTES)
        self._threads, name = threads, "bytes" if isinstance(source, bytes) else str(source)
        self.spec = spec or f"onnx:{name}"
        proto = _parsed(self._data, self.spec)
        external = _external_files(proto, self._folder, self.spec)
        _refuse_custom(proto, self.spec)
        digest = _digest(self._data, external, self._folder)
        self.files = () if self._folder is None else (Path(str(source)), *(self._folder / name for name in external))
        self.card = card or ModelCard(digest, digest, self.spec)
        # Weights outside need the file's folder; otherwise the runtime gets the very bytes that were checked.
        self._session = _session(str(source) if external else self._data, threads, self.spec)
        self._input, self._dtype, self._batch = _input(self._session, self.spec)
        self._output, self._gives_labels = _output(self._session, self.spec)
        self._probabilities: bool | None = None
        self._pilot()
        self.access = Access.LABELS if self._gives_labels else Access.LABELS | Access.TOP_K | Access.SCORES
        self.access |= Access.LOGITS if self._probabilities is False else Access(0)
        self.access |= Access.WEIGHTS if _weights(proto) else Access(0)

    def ask(self, probes: ProbeSet) -> Answers:
        """Labels, scores and logits as far as the file gives them."""
        inputs = self._converted(probes.array)
        if not len(inputs):
            return Answers.without(0, Status.OK)
        size = self._batch or len(inputs)
        return self._answers(self._joined([self._run(inputs[i : i + size]) for i in range(0, len(inputs), size)]))

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Floating-point initialisers in the order of the file; quantised integers alone are no weights."""
        for tensor in _weights(_parsed(self._data, self.spec)):
            value = _onnx().numpy_helper.to_array(tensor, base_dir=str(self._folder or ""))
            yield tensor.name, value.astype(np.float32)

    def rebuilt(self, weights: Mapping[str, Array]) -> "OnnxModel":
        """Copy the graph with these initialisers; missing names keep their value, the root stays."""
        onnx, proto = _onnx(), _parsed(self._data, self.spec)
        onnx.load_external_data_for_model(proto, str(self._folder or ""))
        own = {tensor.name: tensor for tensor in proto.graph.initializer}
        for name, value in weights.items():
            if name not in own or tuple(own[name].dims) != np.shape(value):
                raise ModelError(
                    f"expected an initialiser of {self.spec}, got {name!r} {np.shape(value)}: "
                    "rebuild a model with its own names and shapes"
                )
            dtype = onnx.helper.tensor_dtype_to_np_dtype(own[name].data_type)
            own[name].CopyFrom(onnx.numpy_helper.from_array(np.asarray(value).astype(dtype), name))
        child = OnnxModel(proto.SerializeToString(), threads=self._threads)
        child.card = ModelCard(child.card.id, self.card.root, self.card.recipe, (self.card.id,))
        return child

    def with_threads(self, threads: int) -> "OnnxModel":
        """The same file in a session with so many threads."""
        return OnnxModel(self._source, threads=threads, spec=self.spec, card=self.card)

    def _pilot(self) -> None:
        """Tell scores from logits on noise, before anything is asked; sizes left open are tried with 32."""
        shape = [d if isinstance(d, int) and d > 0 else PILOT_SIDE for d in (self._input.shape or [])[1:]]
        if self._gives_labels or not shape or math.prod(shape) > PILOT_SIZE:
            return
        noise = np.random.default_rng(0).random((PILOT_ROWS, *shape), np.float32)
        try:
            self.ask(ProbeSet(tuple(map(str, range(PILOT_ROWS))), noise))
        except ModelError:
            return  # the open size was not ours to choose: the first real answer decides

    def _converted(self, inputs: Array) -> Array:
        """Bring probes to the file's input type, after comparing their shape with the declared one."""
        declared = list(self._input.shape or [])
        fits = len(declared) == inputs.ndim and all(
            not isinstance(d, int) or d <= 0 or d == n for d, n in zip(declared[1:], inputs.shape[1:], strict=True)
        )
        if declared and not fits:
            wanted = tuple(d if isinstance(d, int) else d or "any" for d in declared[1:])
            raise ModelError(
                f"expected input {wanted} per probe for {self.spec}, got {inputs.shape[1:]}: "
                "give the suspect the input size of the fingerprint"
            )
        if self._dtype is np.uint8 and inputs.dtype != np.uint8:
            inputs = np.rint(np.clip(np.nan_to_num(inputs), 0, 1) * 255)
        return np.ascontiguousarray(inputs, self._dtype)

    def _run(self, rows: Array) -> Array:
        """One forward pass; a short batch is filled up where the file fixes its size."""
        count, missing = len(rows), (self._batch or len(rows)) - len(rows)
        filled = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
        try:
            (found,) = self._session.run([self._output.name], {self._input.name: filled})
        except Exception as error:
            raise ModelError(
                f"expected {self.spec} to run on inputs {filled.shape}, got {one_line(error)}: "
                "check its input size and operators"
            ) from error
        found = np.asarray(found)
        if found.ndim < 1 or len(found) != len(filled):
            raise ModelError(
                f"expected one output row per input row from {self.spec}, got {found.shape} for "
                f"{len(filled)} inputs: export the model with the batch as first dimension"
            )
        return found[:count]

    def _joined(self, outputs: Sequence[Array]) -> Array:
        """All rows; every row must have the same shape, and labels must be one per row."""
        shapes = {o.shape[1:] for o in outputs}
        if len(shapes) > 1 or (self._gives_labels and math.prod(*shapes) != 1):
            raise ModelError(
                f"expected one label or one score per class for each input from {self.spec}, got rows of "
                f"{sorted(shapes)}: export the model with a single head"
            )
        return np.concatenate(outputs)

    def _answers(self, outputs: Array) -> Answers:
        if self._gives_labels:
            return Answers.from_labels(outputs.reshape(-1))
        outputs = outputs.astype(np.float32)
        if outputs.ndim == 2 and self._probabilities is None:
            self._probabilities = _are_probabilities(outputs[np.isfinite(outputs).all(axis=1)])
        if outputs.ndim == 2 and self._probabilities is False:
            return Answers.from_scores(softmax(outputs), outputs)
        return Answers.from_scores(outputs)


def open_model(rest: str) -> OnnxModel:
    """Open ``victim.onnx``, optionally with ``?threads=4``."""
    target, options = split_spec(rest, allowed=("threads",))
    return OnnxModel(Path(target), threads=whole_number(options, "threads", 1, least=1), spec=f"onnx:{rest}")


def _are_probabilities(outputs: Array) -> bool | None:
    """Whether rows are non-negative and sum to 1, up to half precision's rounding; None without rows."""
    if not len(outputs):
        return None
    return bool((outputs >= -1e-6).all() and np.allclose(outputs.sum(axis=1), 1, atol=2e-3))


def _parsed(data: bytes, spec: str) -> Any:
    """Parse the protocol buffer, without external data."""
    try:
        proto = _onnx().load_model_from_string(data)
    except MissingExtraError:
        raise
    except Exception as error:
        raise ModelError(
            f"expected an ONNX model in {spec}, got {one_line(error)}: the file is truncated or foreign"
        ) from error
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(f"expected an ONNX model in {spec}, got no graph: the file is truncated or foreign")
    for message in _messages(proto):
        names = [v for field, v in message.ListFields() if field.type == field.TYPE_STRING]
        if any(isinstance(n, bytes) for v in names for n in (v if not isinstance(v, str | bytes) else [v])):
            raise ModelError(f"expected readable names in {spec}, got bytes that are no UTF-8: the file is altered")
    return proto


def _messages(message: Any) -> Iterator[Any]:
    """Every message inside a message, however deep: subgraphs, functions and sparse tensors included."""
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(inner)


def _external_files(proto: Any, folder: Path | None, spec: str) -> list[str]:
    """Locations of weights outside the file; only files inside the model's own folder are allowed."""
    found = set()
    for message in _messages(proto):
        if message.DESCRIPTOR.name == "TensorProto" and message.external_data:
            found |= {pair.value for pair in message.external_data if pair.key == "location"} or {""}
    for location in sorted(found):
        _check_location(location, folder, spec)
    return sorted(found)


def _check_location(location: str, folder: Path | None, spec: str) -> None:
    """Refuse what leads, or links, out of the model's folder, or is too large."""
    target = _inside(location, folder)
    if target is None:
        raise ModelError(
            f"expected external weights beside {spec}, got {location[:120]!r}: "
            "the file points outside its folder, do not trust it"
        )
    if not target.is_file() or target.stat().st_size > MAX_EXTERNAL_BYTES:
        raise ModelError(
            f"expected the weights of {spec} in {location[:120]!r}, got none or too many: copy them beside it"
        )


def _inside(location: str, folder: Path | None) -> Path | None:
    """Find the real path of a location, if it stays inside the folder under the rules of every system."""
    parts = {*PurePosixPath(location).parts, *PureWindowsPath(location).parts}
    rooted = location.startswith(("/", "\\")) or PureWindowsPath(location).anchor
    if folder is None or not location or "\0" in location or rooted or ".." in parts:
        return None
    try:
        target = (folder / location).resolve()
        target.is_file()
    except (OSError, RuntimeError):  # a name that is too long, or links in a circle
        return None
    return target if folder.resolve() in target.parents else None


def _refuse_custom(proto: Any, spec: str) -> None:
    """Operators must be built in, or written in ONNX inside the same file."""
    local = {(f.domain, f.name) for f in proto.functions}
    for message in _messages(proto):
        if message.DESCRIPTOR.name != "NodeProto" or message.domain in DOMAINS:
            continue
        if (message.domain, message.op_type) not in local:
            raise ModelError(
                f"expected standard ONNX operators in {spec}, got {message.op_type[:60]!r} of the custom "
                f"domain {message.domain[:60]!r}: it would need foreign code, which minutia never runs"
            )


def _digest(data: bytes, external: Sequence[str], folder: Path | None) -> str:
    """SHA-256 of the file; with weights outside, of the file's and of each of theirs."""
    if folder is None or not external:
        return sha256(data)
    outside = {}
    for location in external:
        with (folder / location).open("rb") as file:
            outside[location] = hashlib.file_digest(file, "sha256").hexdigest()
    return sha256(canonical_json([sha256(data), outside]).encode())


def _weights(proto: Any) -> list[Any]:
    """List initialisers that are floating-point arrays; lone numbers are constants of the graph."""
    return [tensor for tensor in proto.graph.initializer if tensor.data_type in FLOATS and tensor.dims]


def _session(source: str | bytes, threads: int, spec: str) -> Any:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = min(threads, MAX_THREADS), 1
    options.log_severity_level = 4  # errors come back as exceptions; a hostile file does not write to the terminal
    try:
        # The runtime prints some errors to stdout, which belongs to our result; a file may not configure it either.
        with contextlib.redirect_stdout(io.StringIO()):
            return runtime.InferenceSession(
                source, options, providers=["CPUExecutionProvider"], read_config_from_model=0
            )
    except Exception as error:
        raise ModelError(
            f"expected a model that onnxruntime can load in {spec}, got {one_line(error)}: "
            "the file is damaged, or made for a newer runtime"
        ) from error


def _input(session: Any, spec: str) -> tuple[Any, type, int | None]:
    """Find the one input, its numpy type, and the batch size if the file fixes it."""
    inputs = session.get_inputs()
    kinds = [i.type.removeprefix("tensor(").removesuffix(")") for i in inputs]
    if len(inputs) != 1 or kinds[0] not in INPUTS:
        raise ModelError(
            f"expected one input of {', '.join(INPUTS)} in {spec}, got {kinds[:8]}: export a classifier of arrays"
        )
    batch = inputs[0].shape[0] if inputs[0].shape else None
    return inputs[0], INPUTS[kinds[0]], batch if isinstance(batch, int) and batch > 0 else None


def _output(session: Any, spec: str) -> tuple[Any, bool]:
    """Choose the output to read, and tell whether it holds labels: scores before labels, nothing else."""
    outputs = session.get_outputs()
    for kinds, gives_labels in ((SCORES, False), (LABELS, True)):
        for output in outputs:
            if output.type in kinds:
                return output, gives_labels
    raise ModelError(
        f"expected float scores or integer labels from {spec}, got {[o.type for o in outputs][:8]}: "
        "export the model with one of them"
    )


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "an ONNX model") from None
    return onnx


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx", "an ONNX model") from None
    return onnxruntime
