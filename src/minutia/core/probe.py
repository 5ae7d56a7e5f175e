"""Probes: the points that are asked, and the protocol under which they are asked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from minutia.core.digest import Array, array_digest, canonical_json, sha256
from minutia.core.errors import UsageError

Content = Array | str | tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Probe:
    """One question: an array for a classifier, a string or chat messages for a language model."""

    id: str
    content: Content
    repeat: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """Many probes as columns, in the order in which they are asked.

    ``content`` is one array of shape (n, *input) for classifiers, else a tuple of texts or chat messages.
    ``protocol`` holds everything else that may change an answer (channel, sampling, preprocessing).

    >>> probes = ProbeSet(("a", "b"), np.zeros((2, 3)), {"channel": "array"})
    >>> len(probes), probes[1].id, len(probes.take([0]))
    (2, 'b', 1)
    """

    ids: tuple[str, ...]
    content: Array | tuple[Content, ...]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    repeat: int = 0

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.content):
            raise UsageError(f"expected one content per probe, got {len(self.ids)} ids and {len(self.content)}")
        if len(set(self.ids)) != len(self.ids):
            raise UsageError("expected distinct probe ids, got duplicates: rename the repeated ones")

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Probe]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, row: int) -> Probe:
        sampling = self.protocol.get("sampling", {})
        return Probe(self.ids[row], self.content[row], self.repeat, sampling)

    @property
    def array(self) -> Array:
        """The content as one array (n, *input); an error for text probes."""
        if not isinstance(self.content, np.ndarray):
            raise UsageError("expected array probes, got text: this method or model is for classifiers")
        return self.content

    def take(self, rows: Sequence[int] | Array) -> "ProbeSet":
        """The probes at these rows, in this order, under the same protocol."""
        ids = tuple(self.ids[int(r)] for r in rows)
        if isinstance(self.content, np.ndarray):
            return replace(self, ids=ids, content=self.content[np.asarray(rows, dtype=int)])
        return replace(self, ids=ids, content=tuple(self.content[int(r)] for r in rows))

    def content_id(self, row: int) -> str:
        """Digest of what one probe asks, whatever it is called: the key under which answers are kept."""
        item = self.content[row]
        what = array_digest(item) if isinstance(item, np.ndarray) else sha256(canonical_json(item).encode())
        return sha256(canonical_json([what, dict(self.protocol)]).encode())

    @cached_property
    def digest(self) -> str:
        """Protocol hash: every probe's content, the order, and all parameters. Another hash is another experiment."""
        if isinstance(self.content, np.ndarray):
            what: object = array_digest(self.content)
        else:
            what = list(self.content)
        return sha256(canonical_json([list(self.ids), what, dict(self.protocol), self.repeat]).encode())


def numbered(content: Array | tuple[Content, ...], protocol: Mapping[str, Any]) -> ProbeSet:
    """Make a probe set with ids p000, p001, ….

    >>> numbered(np.zeros((2, 1)), {}).ids
    ('p000', 'p001')
    """
    width = max(3, len(str(len(content) - 1)))
    return ProbeSet(tuple(f"p{i:0{width}d}" for i in range(len(content))), content, protocol)
