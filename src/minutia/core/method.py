"""The contract of a method: enrol, observe, score. Deciding is sealed and the same for all."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self, final

import numpy as np

from minutia.core import integrity
from minutia.core import judge as sealed
from minutia.core.access import Access, require
from minutia.core.answers import Answers, Observation, Status
from minutia.core.digest import Array
from minutia.core.errors import AnswerError, BudgetError, ModelError, ProtocolError, UsageError
from minutia.core.fingerprint import THREATS, Fingerprint, Null, Part
from minutia.core.keys import configured, key_of, split_key
from minutia.core.material import Material
from minutia.core.model import Model
from minutia.core.probe import ProbeSet, numbered
from minutia.core.verdict import Verdict
from minutia.stats.nulls import Significance
from minutia.stats.relabelling import relabelling
from minutia.stats.sequential import Standardiser

ANCHORS, ANCHOR_LABELS = "anchors.inputs", "anchors.labels"
"""Arrays of a fingerprint that hold natural inputs of known class."""
ANCHORS_PER_CLASS = 5
ANCHOR_POOL = 2000
"""Inputs among which anchors are looked for."""
CLEAR_ORDER = 0.8
"""Share of anchors that one order of classes must explain."""
SILENT_LOOKS = 3
"""Looks without a single answer after which a suspect is given up."""


class Enrolment(NamedTuple):
    """What a method's ``enrol`` returns: probes in order of asking, and arrays of its own.

    ``fitted`` are the roots of unrelated models on which probes or a verifier were fitted: their scores are no scale
    for fresh models, so the others set the scale of the looks. ``members`` are those of a portfolio.
    """

    probes: ProbeSet
    arrays: dict[str, Array]
    fitted: frozenset[str] = frozenset()
    members: tuple[Part, ...] = ()


def looks_for(count: int) -> tuple[int, ...]:
    """The default looks: from six queries on, each about a third later than the one before, the last at the end.

    Fewer than six answers hang on one or two regions of the input space, where whole families of models agree.

    >>> looks_for(20)
    (6, 8, 10, 13, 17, 20)
    """
    looks, step = [], 6
    while step < count:
        looks.append(step)
        step = max(step + 1, int(step * 1.3 + 0.5))
    return (*looks, count)


@dataclass(frozen=True)
class Method(ABC):
    """One way to fingerprint. Fields are parameters; every parameter that changes a result is in ``key``.

    Authors write the hooks ``enrol`` and ``score``, sometimes ``observe`` and ``scale``. Outcome, refusals,
    budgets and wording are decided in one place, so that no method marks its own homework. ``serves`` names the
    contents of data (``Material.content``) that probes can be made of, ``reads`` what ``read`` takes from a model
    besides its answers. A method whose H0 needs no null models says ``is_exact`` and gives its p-value in ``exact``;
    one that learns from many copies and unrelated models says ``learns``; one that compares relations, for which a
    suspect may have another number of classes, says ``other_classes``.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    question: ClassVar[Literal["origin", "data-use", "same", "integrity"]] = "origin"
    h0: ClassVar[str]
    source: ClassVar[str]
    owner_needs: ClassVar[Access]
    suspect_needs: ClassVar[Access]
    reads: ClassVar[Access] = Access(0)
    is_exact: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    serves: ClassVar[frozenset[str]] = frozenset({"image", "tabular", "text"})
    other_classes: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """Name, every parameter and the version, such as ``name(margin=0.5,probes=100)@1``."""
        return f"{key_of(self)}@{self.version}"

    @classmethod
    def from_key(cls, key: str) -> Self:
        """Rebuild the method that a fingerprint names; another version is refused."""
        name, parameters, version, preset = split_key(key)
        if (name, version, preset) != (cls.name, cls.version, ""):
            raise UsageError(
                f"expected a fingerprint of {cls.name}@{cls.version}, got {key}: "
                "install the minutia version that wrote it"
            )
        built: Self = configured(cls, cls.name, parameters)
        return built

    @final
    def extract(
        self, model: Model, material: Material, *, seed: int = 0, threats: tuple[str, ...] = THREATS
    ) -> Fingerprint:
        """Enrol a model: craft probes, record the owner's, the spent models' and the controls' answers.

        ``threats`` are the kinds of copy that a verdict must rule out before it may say no match.
        """
        require(self.name, self.owner_needs, model.spec, model.access)
        self._check_content(material.content)
        rng = np.random.default_rng(seed)
        enrolled = self.enrol(model, material, rng)
        probes = enrolled.probes
        known = enrolled.arrays
        controls = {k: tuple(self.asked(m, probes, known) for m in copies) for k, copies in material.controls.items()}
        own = self.asked(model, probes, known)
        return Fingerprint(
            method=self.key,
            question=self.question,
            owner=model.card,
            probes=probes,
            answers=own.answers,
            arrays={**enrolled.arrays, **_anchors(model, material)},
            controls={"owner": (self.asked(model, probes, known),), **controls},
            reference=tuple(self.asked(m, probes, known) for m in _scaling(material.unrelated, enrolled.fitted)),
            members=enrolled.members,
            spent=frozenset(m.card.root for m in material.unrelated),
            schedule=looks_for(len(probes)),
            threats=threats,
            binds=("content", "order", *sorted(probes.protocol)),
            seed=seed,
        )

    @final
    def verify(
        self, fp: Fingerprint, suspect: Model, null: Null, *, alpha: float = 0.01, early: bool = True, budget: int = 0
    ) -> Verdict:
        """Ask a suspect look by look and stop at the first conviction; H0: see ``h0``.

        ``early=False`` asks everything at once; the p-value is then the same or smaller, never another test.
        ``budget`` ends the questions at the last look that fits into it (0: no limit). Whether a model is unchanged is
        asked all at once: every answer counts, and the null lies in the fingerprint.
        """
        if self.question == "integrity":
            seen = self.observe(fp, suspect, upto=min(budget or len(fp.probes), len(fp.probes)))
            return self.judge(fp, seen, null, alpha=alpha)
        return self._verified(fp, suspect, null, alpha=alpha, early=early, budget=budget)

    @final
    def _verified(
        self, fp: Fingerprint, suspect: Model, null: Null, *, alpha: float, early: bool, budget: int
    ) -> Verdict:
        """Look by look."""
        sealed.check_question(self, fp, alpha)
        null.check(fp)
        looks = [n for n in fp.schedule if not budget or n <= budget]
        if not looks:
            raise UsageError(f"expected a budget of at least {fp.schedule[0]} queries (first look), got {budget}")
        seen: Observation | None = None
        silent, early = 0, early and (null.m > 0 or self.is_exact)
        for upto in looks:
            try:
                seen = self.observe(fp, suspect, reference=seen, upto=upto)
            except AnswerError:
                # Nothing has arrived so far; a suspect that only fails at times will answer at one of the next looks.
                silent += 1
                if silent == SILENT_LOOKS or upto == looks[-1]:
                    raise
                continue
            except BudgetError:
                # Retries are paid for as well: what was asked before the hard stop is still a valid look.
                if seen is None:
                    raise
                break
            if early and sealed.judge(self, fp, seen, null, alpha=alpha).outcome == "match":
                break
        assert seen is not None
        return sealed.judge(self, fp, self.in_order(fp, suspect, seen), null, alpha=alpha)

    @final
    def in_order(self, fp: Fingerprint, suspect: Model, seen: Observation) -> Observation:
        """Put a suspect's classes into the owner's order, if its answers look as if they stood in another.

        The order is read off natural inputs of known class, which every model of the task names alike: an innocent
        model would be put in order the same way, so nothing speaks for or against it.
        """
        anchors, own = fp.arrays.get(ANCHORS), fp.arrays.get(ANCHOR_LABELS)
        if anchors is None or own is None or not sealed.relabelled(fp, seen):
            return seen
        # Names of their own: a transcript is looked up by name, and these are no probes.
        questions = ProbeSet(tuple(f"anchor{i:03d}" for i in range(len(anchors))), anchors, {"channel": "array"})
        try:
            answers = suspect.ask(questions).labels
        except (AnswerError, BudgetError, ProtocolError):
            return seen  # nothing is left to ask with: the flag on the verdict says what to do
        named = answers >= 0
        if not named.any():
            return seen
        names, rate = relabelling(own[named], answers[named])
        return seen if rate < CLEAR_ORDER else seen.renamed(names, sealed.RENAMED)

    @final
    def judge(self, fp: Fingerprint, observation: Observation, null: Null, *, alpha: float = 0.01) -> Verdict:
        """Judge a stored observation; pure: the same arguments give the same verdict anywhere."""
        null.check(fp)
        if self.question == "integrity":
            return integrity.judge(self, fp, observation, alpha=alpha)
        return sealed.judge(self, fp, observation, null, alpha=alpha)

    @abstractmethod
    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Choose the probes, most informative first."""

    @abstractmethod
    def score(self, fp: Fingerprint, observation: Observation) -> float:
        """How alike the answers are on exactly what was asked; pure, larger = closer."""

    def observe(
        self, fp: Fingerprint, suspect: Model, *, reference: Observation | None = None, upto: int | None = None
    ) -> Observation:
        """Ask the first ``upto`` probes; those already answered in ``reference`` are not asked again."""
        behind = getattr(suspect, "behind", None)
        given = suspect.access | (behind.access if behind is not None else Access(0))
        require(self.name, self.suspect_needs, suspect.spec, given)
        done = 0 if reference is None else len(reference.asked)
        rows = np.arange(done, len(fp.probes) if upto is None else upto)
        some, again = fp.probes.take(rows), reference is not None
        fresh = self.asked(suspect, some, fp.arrays, protocol=fp.probes.digest, again=again)
        if self.question != "integrity" and not self.other_classes:  # there, other classes are a finding
            _check_classes(fp, fresh)
        if reference is None:
            return fresh
        answers = type(fresh.answers).joined([reference.answers, fresh.answers])
        read = reference.arrays
        return Observation(fresh.subject, reference.asked + fresh.asked, answers, fp.probes.digest, arrays=read)

    def columns(self, fp: Fingerprint) -> "Sequence[tuple[Method, Fingerprint]]":
        """The methods that are judged together, each with its part of the fingerprint: this one alone."""
        return ((self, fp),)

    @final
    def asked(
        self,
        model: Model,
        probes: ProbeSet,
        arrays: Mapping[str, Array] | None = None,
        *,
        protocol: str | None = None,
        again: bool = False,
    ) -> Observation:
        """Ask one model and wrap its answers, with what the method reads off weights that are open.

        ``arrays`` are those of the fingerprint, of which reading may need some. ``again`` says that this is a further
        look, and that the weights were read before.
        """
        behind = getattr(model, "behind", model)
        read = {} if again or behind is None or not self.reads else self.read(behind, arrays or {})
        answers = model.ask(probes) if len(probes) else Answers.without(0, Status.OK)
        return Observation(model.card, probes.ids, answers, protocol or probes.digest, arrays=read)

    def read(self, model: Model, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What the method needs of a model's weights, by names that begin with its own; ``arrays`` it stored itself."""
        return {}

    def exact(self, fp: Fingerprint, path: Array, sizes: Array) -> Significance | None:
        """The significance of scores (l,) at the first l looks, where H0 needs no null models.

        ``sizes`` (looks,) are the answers at every look of the schedule, those to come included.
        None for methods that are judged by their rank among unrelated models.
        """
        return None

    def _check_content(self, content: str) -> None:
        if content not in self.serves:
            raise UsageError(
                f"expected {' or '.join(sorted(self.serves))} data for {self.name}, got {content}: "
                "choose a method that serves it, 'minutia methods' lists what each one serves"
            )

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """Scores (looks,) of growing prefixes of the asked probes; override only to be faster."""
        return np.array([self.score(fp, observation.only(ids)) for ids in prefixes])

    def scale(self, spent: Array, sizes: Array) -> Standardiser:
        """The scale of each look, fixed at enrolment from spent models' scores (models, looks); pure."""
        if len(spent) >= 2:
            return Standardiser.fit(spent)
        return Standardiser(np.zeros(len(sizes)), 1 / np.sqrt(sizes))


def _anchors(model: Model, material: Material) -> dict[str, Array]:
    """Natural inputs of known class, those that the owner's model names right: they tell the order of classes."""
    inputs, labels = material.stored(material.inputs[:ANCHOR_POOL]), np.asarray(material.labels[:ANCHOR_POOL])
    if not len(inputs):
        return {}
    right = np.flatnonzero(model.ask(numbered(inputs, {"channel": "array"})).labels == labels)
    rows = np.concatenate([right[labels[right] == c][:ANCHORS_PER_CLASS] for c in np.unique(labels)])
    rows = rows.astype(int)
    return {ANCHORS: inputs[rows], ANCHOR_LABELS: labels[rows].astype(np.int64)}


def _scaling(unrelated: Sequence[Model], fitted: frozenset[str]) -> list[Model]:
    """Spent models that set the scale: none that was fitted on and, where some were, only those of the main recipe."""
    left = [m for m in unrelated if m.card.root not in fitted]
    if not fitted or not left:
        return left
    recipes = Counter(m.card.recipe for m in left)
    return [m for m in left if m.card.recipe == recipes.most_common(1)[0][0]]


def _check_classes(fp: Fingerprint, observation: Observation) -> None:
    """Scores over another number of classes cannot be compared label by label."""
    own, seen = fp.answers.scores, observation.answers.scores
    if own is not None and seen is not None and own.shape[1] != seen.shape[1]:
        raise ModelError(
            f"expected a suspect with {own.shape[1]} classes like the owner's model, got {seen.shape[1]}: "
            "map its classes to the owner's first, or use a method for other label spaces"
        )
