"""scikit-learn classifiers: a fitted estimator from Python, or ``sklearn:module:factory``. Pickles are never read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.code import one_line, own_code
from minutia.core.digest import Array, array_digest, canonical_json, sha256
from minutia.core.errors import MinutiaError, ModelError, UsageError
from minutia.core.model import ModelCard
from minutia.core.probe import ProbeSet
from minutia.models import split_spec, whole_number
from minutia.models.callable import ACCESS, Output, answers_of
from minutia.models.toy import softmax

ASKED: Mapping[str, Output] = {"predict_proba": "probabilities", "decision_function": "logits", "predict": "labels"}
"""What is asked, the first that the estimator has, and what comes out."""
MAX_CLASS = 2**16
SEARCH_TREES = ("KDTree", "BallTree")
"""They count their visits, and the estimator holds the points that they were built from."""


class SklearnModel:
    """A fitted classifier, or a pipeline that ends in one: inputs (n, *shape) are flattened to (n, features).

    The label is the class with the highest score, which for a support vector machine need not be what ``predict``
    says; of equal scores it is the first class. Inputs are passed in double precision, scores are kept in single.
    Margins of two classes (n,) become logits (0, margin).

    ``classes`` are the owner's classes in their order. Without them, classes that are whole numbers stand for
    themselves (a class that was never fitted has probability 0), and others for their place in ``classes_``.
    The card's id is a digest of everything that was fitted.

    >>> from sklearn.dummy import DummyClassifier
    >>> model = SklearnModel(DummyClassifier(strategy="prior").fit(np.zeros((3, 4)), ["a", "b", "b"]))
    >>> model.ask(ProbeSet(("p",), np.zeros((1, 2, 2)))).scores.round(2).tolist()
    [[0.33000001311302185, 0.6700000166893005]]
    """

    def __init__(self, estimator: Any, name: str = "", *, classes: Sequence[str] = (), spec: str = "") -> None:
        self.spec = spec or f"sklearn:{name or type(estimator).__name__}"
        if not hasattr(estimator, "classes_") or not hasattr(estimator, "predict"):
            raise ModelError(
                f"expected a fitted classifier from {self.spec}, got {type(estimator).__name__} without classes_: "
                "fit it first"
            )
        self._estimator = estimator
        self._method = next(name for name in ASKED if hasattr(estimator, name))
        self._places, self._width = _places(estimator.classes_, classes, self.spec)
        complete = self._width == len(self._places)
        self.access = ACCESS[ASKED[self._method]] & (~Access(0) if complete else ~Access.LOGITS)
        digest = sha256(canonical_json(["sklearn", _content(estimator), list(classes)]).encode())
        self.card = ModelCard(digest, digest, self.spec)

    def ask(self, probes: ProbeSet) -> Answers:
        """Probabilities, margins or labels of every probe."""
        if not len(probes):
            return Answers.without(0, Status.OK)
        inputs = np.asarray(probes.array, np.float64).reshape(len(probes), -1)
        try:
            found = getattr(self._estimator, self._method)(inputs)
        except Exception as error:
            raise ModelError(
                f"expected {self.spec} to take {inputs.shape[1]} features, got {type(error).__name__}: "
                f"{one_line(error)}; give the suspect the input size of the fingerprint"
            ) from error
        return self._answers(found, len(inputs))

    def _answers(self, found: Any, count: int) -> Answers:
        output = ASKED[self._method]
        if output == "labels":
            return answers_of(self._renamed(np.asarray(found)), count, output, (), self.spec)
        rows = np.asarray(found)
        if rows.ndim == 1 and len(self._places) == 2:
            rows = np.stack([np.zeros_like(rows), rows], axis=1)
        if rows.shape != (count, len(self._places)):
            raise ModelError(
                f"expected one score for each of {len(self._places)} classes from {self.spec}, got an array "
                f"{rows.shape}: use one output, and decision_function_shape='ovr'"
            )
        if output == "logits" and Access.LOGITS not in self.access:
            rows, output = softmax(rows.astype(np.float32)), "probabilities"
        spread = np.zeros((count, self._width))
        spread[:, list(self._places.values())] = rows
        return answers_of(spread, count, output, (), self.spec)

    def _renamed(self, labels: Array) -> Array:
        return np.array([self._places.get(label, -1) for label in labels.tolist()], np.int64)


def open_model(rest: str) -> SklearnModel:
    """Open ``module:factory`` or ``file.py:factory``, optionally with ``?seed=3&classes=cat,dog``.

    The factory is the user's own code, named on his own command line; it returns a fitted classifier. With ``seed`` it
    is called with that number, so that one factory makes all the models of a null. ``classes`` are the owner's classes
    in their order. Files of joblib or pickle are never read: they run their author's code.
    """
    target, options = split_spec(rest, allowed=("seed", "classes"))
    factory: Callable[..., Any] = own_code(target, "sklearn")
    given = (whole_number(options, "seed", 0),) if "seed" in options else ()
    try:
        estimator = factory(*given)
    except MinutiaError:
        raise
    except Exception as error:
        raise ModelError(
            f"expected {target} to return a fitted classifier, got {type(error).__name__}: {one_line(error)}; "
            "MINUTIA_DEBUG=1 shows where"
        ) from error
    classes = options["classes"].split(",") if "classes" in options else ()
    return SklearnModel(estimator, classes=classes, spec=f"sklearn:{rest}")


def _places(own: Any, classes: Sequence[str], spec: str) -> tuple[dict[Any, int], int]:
    """Where each of the estimator's classes stands among the owner's, and how many there are."""
    if not isinstance(own, np.ndarray) or own.ndim != 1 or len(own) < 2:
        raise ModelError(f"expected one output with two or more classes from {spec}, got classes_ {own!r:.80}")
    names = own.tolist()
    if classes:
        known = {name: place for place, name in enumerate(classes)}
        foreign = [name for name in names if str(name) not in known]
        if foreign:
            raise UsageError(
                f"expected every class of {spec} in classes={','.join(classes)}, got no {foreign[0]!r}: add it"
            )
        return {name: known[str(name)] for name in names}, len(classes)
    if own.dtype.kind in "iu" and own.min() >= 0:
        if own.max() >= MAX_CLASS:
            raise ModelError(f"expected classes below {MAX_CLASS} in {spec}, got {own.max()}: list them with classes=")
        return {name: name for name in names}, int(own.max()) + 1
    return {name: place for place, name in enumerate(names)}, len(names)


def _content(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Everything an estimator holds as plain data, arrays by digest: equal fits are equal, whatever their addresses."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        return [type(value).__name__, repr(value)]
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        # Records are taken apart: the bytes between their fields are nobody's.
        names = value.dtype.names
        return [_content(value[name]) for name in names] if names else array_digest(value)
    if id(value) in above:
        return "above"
    inside = (*above, id(value))
    if isinstance(value, Mapping):
        return sorted((canonical_json(_content(k)), _content(v, inside)) for k, v in value.items())
    if isinstance(value, list | tuple | np.ndarray):
        return [_content(item, inside) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(canonical_json(_content(item, inside)) for item in value)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return [value.__module__, value.__qualname__]
    return [type(value).__qualname__, _content(_state(value), inside)]


def _state(value: Any) -> Any:
    """What an object would hand to a copy of itself."""
    if type(value).__name__ in SEARCH_TREES:
        return None
    if hasattr(value, "get_state"):  # a random generator of numpy's
        return value.get_state()
    held = getattr(value, "__dict__", None)
    if held:
        return held
    try:
        return value.__reduce_ex__(2)[1:3]
    except TypeError:
        return None
