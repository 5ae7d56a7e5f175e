"""The study file: what a bench trains, attacks and measures, as TOML."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from minutia import catalog
from minutia.core.errors import FileError, UsageError
from minutia.core.fingerprint import HARDEST_RUNG, THREATS
from minutia.core.keys import did_you_mean
from minutia.core.model import Plan, TrainableModel
from minutia.storage.data import Dataset, load_dataset
from minutia.study.battery import GROUPS, group_of

BASELINES = ("natural_errors", "noise_agreement")
OTHER_RECIPE = "other recipe, same data"
OTHER_ARCHITECTURE = "other architecture, same data"
DISJOINT = "same architecture, disjoint data"
OTHER_DATA = "same architecture, other data"
MAX_BYTES = 2**20
OVERLAP_AT_MOST = 0.01
"""Real data holds a few doubles; more of the owner's inputs among the thief's would measure another thing."""
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """Specs of data sets: the owner's, the thief's (disjoint from it), and others of the same input shape."""

    owner: str
    thief: str
    foreign: str = ""
    other: str = ""


class Network(_Part):
    """The owner's architecture and training plan, and another architecture for students and innocents."""

    architecture: str
    other: str
    epochs: Annotated[int, Field(ge=1)] = 12
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 4e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0

    def plan(self) -> Plan:
        """As a training plan."""
        return Plan(self.epochs, self.batch_size, self.learning_rate, self.weight_decay)


class Counts(_Part):
    """How many models of each kind, per seed; ``copies`` and ``attacked_innocents`` are per attack.

    Beside the spent models of the deciding rung there are ``spent_other`` of the other architecture and
    ``spent_halves`` on each half of the owner's data, and ``surrogates`` copies per way of copying that the owner makes
    on his own data, half as many on each half of it, for methods that learn from many models.
    """

    calibrators: Annotated[int, Field(ge=1)] = 99
    spent: Annotated[int, Field(ge=2)] = 20
    spent_other: Count = 0
    spent_halves: Count = 0
    surrogates: Count = 0
    controls: Count = 9
    copies: Annotated[int, Field(ge=1)] = 3
    innocents: Annotated[int, Field(ge=1)] = 100
    per_rung: Count = 30
    attacked_innocents: Count = 1


class Curve(_Part):
    """One attack with a parameter that grows: ``attack`` holds ``{x}``, which takes the values ``x``.

    ``along`` names what the axis shows instead of these values: a figure of the card, such as steps or inputs.
    """

    title: str
    attack: str
    x: Annotated[tuple[float, ...], Field(min_length=2)]
    along: Literal["", "steps", "inputs", "queries", "weights_changed", "weight_distance"] = ""
    copies: Annotated[int, Field(ge=1)] = 2


class Study(_Part):
    """A whole study; ``attacks`` and ``without`` name groups of the battery or attacks, ``all`` is the battery.

    ``forged`` are those of ``methods`` with which false claims are made, by default all that compare match rates.
    ``reserve`` is one of ``methods``: it is enrolled once more, and whoever got to know its probes is tried with both.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    methods: tuple[str, ...] = ("ipguard",)
    reserve: str = ""
    attacks: tuple[str, ...] = ("all",)
    without: tuple[str, ...] = ()
    claims: tuple[str, ...] = ("transferable", "post_hoc")
    forged: tuple[str, ...] = ()
    access: Literal["labels", "scores", "weights"] = "labels"
    threats: tuple[str, ...] = THREATS
    ancestor_epochs: Count = 4
    data: Data
    model: Network
    counts: Counts = Counts()
    curves: tuple[Curve, ...] = ()

    @property
    def baselines(self) -> tuple[str, ...]:
        """The naive methods that stand in every table."""
        return BASELINES

    @property
    def all_methods(self) -> tuple[str, ...]:
        """Methods and baselines, each once."""
        named = {key.partition("(")[0] for key in self.methods}
        return (*self.methods, *(b for b in BASELINES if b not in named))

    @model_validator(mode="after")
    def _fits(self) -> "Study":
        """Names are known and data sets fit together, before hours of work."""
        for key in self.methods:
            catalog.method(key)
        for name, key in (("reserve", self.reserve), *(("forged", key) for key in self.forged)):
            if key and key not in self.methods:
                raise UsageError(
                    f"expected one of the study's methods as {name}, got {key}: name it in methods as well"
                )
        for key in self.claims:
            catalog.claim(key)
        list(study_attacks(self))
        if len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"expected different seeds, got {list(self.seeds)}: leave the repeated one out")
        for spec in (self.model.architecture, self.model.other):
            if not isinstance(catalog.model(spec), TrainableModel):
                raise UsageError(f"expected architectures that can be trained, got {spec}: name torch:module:factory")
        own = load_dataset(self.data.owner)
        named = {name: getattr(self.data, name) for name in ("thief", "foreign", "other")}
        for name, spec in named.items():
            if spec and load_dataset(spec).inputs.shape[1:] != own.inputs.shape[1:]:
                raise UsageError(
                    f"expected data.{name} with inputs like the owner's {own.inputs.shape[1:]}, got "
                    f"{load_dataset(spec).inputs.shape[1:]} from {spec}: give data of one input shape"
                )
        for name, spec in (("thief", self.data.thief), ("foreign", self.data.foreign), ("other", self.data.other)):
            shared = _shared(own, load_dataset(spec)) if spec else 0.0
            if shared > OVERLAP_AT_MOST:
                raise UsageError(
                    f"expected data.{name} without the owner's inputs, got {shared:.0%} of them: give other rows"
                )
        return self

    def rungs(self) -> dict[str, tuple[str, str, Plan]]:
        """Architecture, data and plan of every rung of the negative ladder that is trained from scratch."""
        plan, like, own = self.model.plan(), self.model.architecture, self.data.owner
        longer = self.model.model_copy(
            update={"epochs": 2 * self.model.epochs, "learning_rate": plan.learning_rate / 2}
        )
        found = {
            OTHER_ARCHITECTURE: (self.model.other, own, plan),
            DISJOINT: (like, self.data.thief, plan),
            OTHER_RECIPE: (like, own, longer.plan()),
            HARDEST_RUNG: (like, own, plan),
        }
        return ({OTHER_DATA: (like, self.data.other, plan)} if self.data.other else {}) | found

    def facts(self) -> dict[str, Any]:
        """What a reader needs to repeat the study: the file as it was read, without its name and seeds."""
        plain = self.model_dump(mode="json", exclude={"name", "seeds"})
        sizes = {
            name: len(load_dataset(spec).inputs)
            for name, spec in plain["data"].items()
            if spec and isinstance(spec, str)
        }
        return {**plain, "inputs": sizes}


def built_in() -> dict[str, Path]:
    """Studies that come with minutia, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "studies").glob("*.toml"))}


def load_study(path: Path) -> Study:
    """Read a study file; an unknown key, attack or method is refused with the nearest known one."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"expected a study file of at most {MAX_BYTES >> 20} MiB, got {path}: name a TOML file")
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileError:
        raise
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise FileError(f"expected a study file (TOML) at {path}, got {why}: see 'minutia bench --help'") from error
    return study(found, str(path))


def study(found: Mapping[str, Any], where: str = "the study") -> Study:
    """Check plain data and make a study of it."""
    try:
        return Study.model_validate(dict(found))
    except ValidationError as error:
        raise UsageError(_sentence(error, where)) from None


class Wanted(NamedTuple):
    """One attack of a study: as it is called there, its full key, its group, its place on a curve, how many copies."""

    label: str
    key: str
    group: str
    curve: str
    x: float | None
    copies: int
    along: str = ""


def study_attacks(study: Study) -> Iterator[Wanted]:
    """Every attack of a study, then the points of its curves."""
    for label in _labels(study):
        yield Wanted(label, catalog.attack(label).key, group_of(label), "", None, study.counts.copies)
    for curve in study.curves:
        if "{x}" not in curve.attack:
            raise UsageError(f"expected {{x}} in the attack of curve {curve.title!r}, got {curve.attack!r}")
        for x in curve.x:
            key = curve.attack.replace("{x}", repr(int(x)) if x == int(x) else repr(x))
            yield Wanted(key, catalog.attack(key).key, group_of(key), curve.title, x, curve.copies, curve.along)


def _shared(owner: Dataset, thief: Dataset) -> float:
    """The share of the thief's inputs that are also the owner's."""
    known = {row.tobytes() for row in owner.inputs}
    return sum(row.tobytes() in known for row in thief.inputs) / max(1, len(thief.inputs))


def _labels(study: Study) -> list[str]:
    """Attacks as named: groups are spelled out, what ``without`` names is left out."""
    left_out = {catalog.attack(label).key for name in study.without for label in _spelled_out(name)}
    named = [label for name in study.attacks for label in _spelled_out(name)]
    return [label for label in dict.fromkeys(named) if catalog.attack(label).key not in left_out]


def _spelled_out(name: str) -> tuple[str, ...]:
    if name == "all":
        return tuple(label for labels in GROUPS.values() for label in labels)
    if name in GROUPS:
        return GROUPS[name]
    try:
        catalog.attack(name)
    except UsageError as error:
        if near := did_you_mean(name, ["all", *GROUPS]):
            raise UsageError(f"expected a group of the battery or an attack, got {name!r}{near}") from error
        raise
    return (name,)


def _sentence(error: ValidationError, where: str) -> str:
    """The first thing that is wrong, in one sentence."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        part = first["loc"][:-1]
        known = _known_keys(tuple(str(p) for p in part if not isinstance(p, int)))
        return (
            f"expected a key of {'.'.join(map(str, part)) or 'a study'} ({', '.join(known)}), got {place!r} in {where}"
            f"{did_you_mean(str(first['loc'][-1]), known)}"
        )
    if first["type"] == "missing":
        return f"expected {place!r} in {where}, found none: add it"
    return f"expected a valid {place or 'study'} in {where}, got {first['input']!r}: {first['msg']}"[:600]


def _known_keys(part: tuple[str, ...]) -> list[str]:
    kinds: dict[tuple[str, ...], type[BaseModel]] = {
        (): Study,
        ("data",): Data,
        ("model",): Network,
        ("counts",): Counts,
        ("curves",): Curve,
    }
    return list(kinds.get(part, Study).model_fields)
