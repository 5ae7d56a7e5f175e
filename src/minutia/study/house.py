"""An owner with all that belongs to him in a study, and the suspects that are tried against him."""

from dataclasses import dataclass, field
from typing import Any

from minutia.core.fingerprint import HARDEST_RUNG
from minutia.storage.models import Entry

ANCESTOR = "same public ancestor, other fine-tune"
"""The rung on which owner, null models and innocents are children of one ancestor."""


RESERVE = " in reserve"
"""Ends the key of a method under which its second fingerprint stands, the one that nobody knows."""


@dataclass(frozen=True)
class Suspect:
    """A model on trial and what a table must know of it; ``entry`` is the reason where it could not be made.

    ``only`` names the method whose fingerprint it was made against, ``along`` the figure of the card that is its ``x``.
    """

    seed: int
    truth: str
    kind: str
    entry: Entry | str
    number: int
    label: str = ""
    group: str = ""
    attack: str = ""
    serving: str = ""
    curve: str = ""
    x: float | None = None
    only: str = ""
    along: str = ""

    def meets(self, method: str) -> bool:
        """Whether it is tried with the fingerprint of this method; who knows one is tried with its reserve too."""
        return self.only in ("", method.removesuffix(RESERVE))


@dataclass
class House:
    """An owner with everything that was trained around him; there is one from scratch and one from an ancestor."""

    seed: int
    name: str
    owner: Entry
    spent: list[Entry]
    calibrators: list[Entry]
    rung: str
    companion: Entry | None = None
    craft: list[Entry] = field(default_factory=list)
    surrogates: list[Entry] = field(default_factory=list)
    controls: list[Entry] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)
    enrolled: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def helpers(self) -> list[Entry]:
        """Every model that was trained for the fingerprint itself."""
        return [*self.spent, *self.craft, *self.surrogates, *self.controls]

    @property
    def innocents(self) -> list[Entry]:
        """Fresh models of the deciding rung that nobody attacked."""
        some = [s for s in self.suspects if s.kind == HARDEST_RUNG and not s.attack]
        return [s.entry for s in some if isinstance(s.entry, Entry)]
