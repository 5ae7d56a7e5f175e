"""What a model exposes: a set of capabilities, not a ladder."""

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


def require(what: str, needs: Access, spec: str, given: Access) -> None:
    """Refuse a model that does not give what a plug-in needs."""
    if needs not in given:
        raise UsageError(
            f"expected a model that gives {', '.join(names(needs))} for {what}, got {spec} with "
            f"{', '.join(names(given)) or 'nothing'}: 'minutia methods' lists what each needs"
        )
