"""What a model exposes: a set of capabilities, not a ladder."""

from collections.abc import Sequence
from enum import Flag, auto

from minutia.core.errors import UsageError


class Access(Flag):
    """A set of capabilities; ``needs in model.access`` is the whole negotiation.

    >>> Access.LABELS in (Access.LABELS | Access.SCORES)
    True
    >>> Access.GRADIENTS in Access.LABELS
    False
    """

    LABELS = auto()
    TOP_K = auto()
    SCORES = auto()
    LOGITS = auto()
    GRADIENTS = auto()
    FEATURES = auto()
    WEIGHTS = auto()
    TRAIN = auto()
    TEXT = auto()
    LOGPROBS = auto()
    USAGE = auto()


def names(access: Access) -> tuple[str, ...]:
    """Name the capabilities of a set in lower case, weakest first.

    >>> names(Access.SCORES | Access.LABELS)
    ('labels', 'scores')
    """
    return tuple(str(flag.name).lower().replace("_", "-") for flag in Access if flag in access)


def require(what: str, needs: Access, spec: str, given: Access, *, instead: Sequence[str] = ()) -> None:
    """Refuse a model that does not give what a plug-in needs; ``instead`` are names of those that need no more."""
    if needs not in given:
        remedy = (
            f"use {', '.join(instead)}, which need no more" if instead else "'minutia methods' lists what each needs"
        )
        raise UsageError(
            f"expected a model that gives {', '.join(names(needs))} for {what}, got {spec} with "
            f"{', '.join(names(given)) or 'nothing'}: {remedy}"
        )
