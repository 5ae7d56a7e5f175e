"""The port through which long work remembers what is already done; storage implements it."""

from collections.abc import Iterable, Mapping
from typing import Protocol


class Journal(Protocol):
    """A durable map from a key to bytes: written once, never changed, survives a kill at any moment."""

    def get(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        """The values of those keys that are known."""
        ...

    def put(self, entries: Mapping[str, bytes]) -> None:
        """Remember all entries or none; a key that is known already keeps its value."""
        ...
