"""Any Python function that answers a batch: ``CallableModel(function)``, or ``callable:module:function``."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.code import one_line, own_code
from minutia.core.digest import Array, canonical_json, sha256
from minutia.core.errors import AnswerError, MinutiaError, ModelError, UsageError
from minutia.core.model import ModelCard
from minutia.core.probe import ProbeSet
from minutia.models import split_spec
from minutia.models.toy import softmax

Output = Literal["probabilities", "logits", "labels"]
SCORED = Access.LABELS | Access.TOP_K | Access.SCORES
ACCESS: dict[Output, Access] = {"probabilities": SCORED, "logits": SCORED | Access.LOGITS, "labels": Access.LABELS}


class CallableModel:
    """A function of float32 inputs (n, *shape) that returns an array, a list or a tensor with one row per input.

    ``output`` says what: ``probabilities`` (n, classes), ``logits`` (n, classes), or ``labels`` (n,), which are whole
    numbers from 0, or names if ``classes`` lists the owner's classes in order. NaN, fractions, negative numbers and
    unknown names are INVALID answers; whatever the function raises is an AnswerError, which a meter asks again.

    The card's id is a digest of the name, the output, the classes and the function's source text. What the function
    closes over is not seen: give several functions of one source (a null, say) a ``name`` each.

    >>> model = CallableModel(lambda x: np.where(x.mean(axis=1) > 0.5, "dog", "cat"), output="labels",
    ...                       classes=("cat", "dog"))
    >>> model.ask(ProbeSet(("a", "b"), np.array([[0.9, 0.8], [0.1, 0.2]]))).labels.tolist()
    [1, 0]
    """

    def __init__(
        self,
        function: Callable[[Array], Any],
        name: str = "",
        *,
        output: Output = "probabilities",
        classes: Sequence[str] = (),
        spec: str = "",
    ) -> None:
        if output not in ACCESS or not callable(function) or len(set(classes)) < len(classes):
            raise UsageError(
                f"expected a function with an output ({', '.join(ACCESS)}) and distinct classes, got "
                f"{type(function).__name__}, {output!r} and {list(classes)}"
            )
        self._function, self._output, self._classes = function, output, tuple(classes)
        self.access = ACCESS[output]
        called = name or f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function))}"
        self.spec = spec or f"callable:{called}"
        digest = sha256(canonical_json([called, output, list(classes), _source(function)]).encode())
        self.card = ModelCard(digest, digest, self.spec)

    def ask(self, probes: ProbeSet) -> Answers:
        """Call the function once with all probes; it gets a copy of them."""
        inputs = np.array(probes.array, np.float32)
        if not len(inputs):
            return Answers.without(0, Status.OK)
        try:
            found = self._function(inputs)
        except MinutiaError:
            raise
        except Exception as error:
            raise AnswerError(
                f"expected answers to inputs of shape {probes.array.shape[1:]}, got {type(error).__name__} from "
                f"{self.spec}: {one_line(error)}; check that it runs and takes this input size"
            ) from error
        return answers_of(found, len(inputs), self._output, self._classes, self.spec)


def open_model(rest: str) -> CallableModel:
    """Open ``module:function`` or ``file.py:function``, optionally with ``?output=labels&classes=cat,dog``.

    The function is the user's own code, named on his own command line. It takes float32 inputs (n, *shape) and returns
    probabilities (n, classes), or with ``output`` logits (n, classes) or labels (n,); labels may be names of classes.
    """
    target, options = split_spec(rest, allowed=("output", "classes"))
    named: dict[str, Output] = {output: output for output in ACCESS}
    output = named.get(options.get("output", "probabilities"))
    if output is None:
        raise UsageError(f"expected output={', '.join(named)} for callable:{target}, got {options['output']!r}")
    classes = options["classes"].split(",") if "classes" in options else ()
    function = own_code(target, "callable")
    return CallableModel(function, target, output=output, classes=classes, spec=f"callable:{rest}")


def answers_of(found: Any, count: int, output: Output, classes: Sequence[str], spec: str) -> Answers:
    """Answers from one row per input as a function returned them; rows that hold none are INVALID."""
    rows = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found)
    wanted = 1 if output == "labels" else 2
    if rows.ndim == 2 and rows.shape[1] == 1 and wanted == 1:
        rows = rows[:, 0]
    if rows.ndim != wanted or len(rows) != count:
        other = "probabilities or logits" if output == "labels" else "labels"
        shape = f"({count},)" if output == "labels" else f"({count}, classes)"
        raise ModelError(
            f"expected {output} {shape} from {spec}, got an array {rows.shape}: "
            f"return one row per input, or say output={other} if it returns these"
        )
    if output == "labels":
        return Answers.from_labels(_labels(rows, classes, spec))
    return _scored(rows, output, spec)


def _scored(rows: Array, output: Output, spec: str) -> Answers:
    if rows.dtype.kind not in "fiub":
        raise ModelError(f"expected numbers as {output} from {spec}, got {rows.dtype}: return an array of floats")
    scores = rows.astype(np.float32)
    if output == "logits":
        return Answers.from_scores(softmax(scores), scores)
    fine = scores[np.isfinite(scores).all(axis=1)]
    sums = (fine >= -1e-6).all(axis=1) & (np.abs(fine.sum(axis=1) - 1) < 2e-3)
    if len(fine) and not sums.any():
        raise ModelError(
            f"expected probabilities that sum to 1 from {spec}, got {fine[0][:5].tolist()}…: "
            "say output=logits if these are logits"
        )
    return Answers.from_scores(scores)


def _labels(rows: Array, classes: Sequence[str], spec: str) -> Array:
    """Whole numbers as they are, names by their place in the list; -1 for everything else."""
    if rows.dtype.kind in "iub":
        return rows.astype(np.int64)
    if rows.dtype.kind == "f":
        whole = np.isfinite(rows) & (rows == np.rint(rows)) & (np.abs(rows) < 2**31)
        return np.where(whole, np.nan_to_num(rows), -1).astype(np.int64)
    if not classes:
        raise ModelError(
            f"expected whole numbers as labels from {spec}, got {rows.dtype}: list the owner's classes in their order, "
            "classes=cat,dog"
        )
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places.get(str(name), -1) for name in rows.tolist()], np.int64)


def _source(function: Callable[..., object]) -> str:
    """The text of a function, where it can be read."""
    with suppress(OSError, TypeError):
        return inspect.getsource(function)
    return ""
