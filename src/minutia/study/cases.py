"""The jobs of a study that ask and judge: enrol an owner, forge a claim, try a suspect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import numpy as np

from minutia import catalog
from minutia.core.access import Access
from minutia.core.answers import Observation, Status
from minutia.core.attack import destroyed
from minutia.core.digest import canonical_json, sha256
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Fingerprint, Null
from minutia.core.judge import yardstick_for
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.core.model import Model
from minutia.core.verdict import Verdict
from minutia.core.yardstick import Yardstick
from minutia.models.metered import Metered
from minutia.stats.evidence import bits_per_query
from minutia.storage.data import load_dataset
from minutia.storage.files import fingerprint_bytes, load_fingerprint, load_null, null_bytes
from minutia.storage.models import Entry
from minutia.study.work import Made
from minutia.study.zoo import held_out, opened, thief, weight_files

ALPHAS = (0.01, 0.05)
SHOWN = {"labels": Access.LABELS, "scores": Access.LABELS | Access.SCORES, "weights": None}
"""What a suspect lets see, by the study's ``access``: with weights, everything."""


@dataclass(frozen=True)
class _AboutOwner:
    """What enrolling and forging share: an owner (or accuser), his data, and the models that will judge."""

    method: str
    owner: Entry
    data: str
    calibrators: tuple[Entry, ...]
    rung: str
    seed: int

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Specs of the data sets it loads."""
        return (self.data,)

    @property
    def bundle(self) -> str:
        """Each is a long job of its own."""
        return ""

    def ids(self, *groups: Sequence[Entry]) -> list[list[str]]:
        """The models that the result depends on."""
        return [[entry.card.id for entry in group] for group in ((self.owner,), self.calibrators, *groups)]

    def finished(self, root: Path, fp: Fingerprint, seconds: float) -> Made:
        """The fingerprint and its null, observed now, as files."""
        null = observed_null(root, fp, self.calibrators, self.rung)
        names = {"fingerprint": _file("fingerprints", fp.digest), "null": _file("nulls", null.digest, fp.digest)}
        value = {**names, "digest": fp.digest, "probes": len(fp.probes), "seconds": seconds, "m": null.m}
        return Made(value, {names["fingerprint"]: fingerprint_bytes(fp), names["null"]: null_bytes(null)})


@dataclass(frozen=True)
class Enrol(_AboutOwner):
    """Extract an owner's fingerprint with one method, and ask its probes to the calibrators."""

    spent: tuple[Entry, ...] = ()
    craft: tuple[Entry, ...] = ()
    controls: tuple[Entry, ...] = ()
    surrogates: tuple[Entry, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Digest of the method, the models and the data."""
        known = [self.method, self.seed, self.rung, load_dataset(self.data).digest]
        models = self.ids(self.spent, self.craft, self.controls, self.surrogates)
        return sha256(canonical_json(["enrol", known, models]).encode())

    @property
    def label(self) -> str:
        """What is being done."""
        return f"enrol {self.method.partition('(')[0]}"

    @property
    def files(self) -> tuple[str, ...]:
        """The weights of everybody who takes part."""
        helpers = (*self.spent, *self.craft, *self.controls, *self.surrogates)
        return weight_files((self.owner, *self.calibrators, *helpers))

    @classmethod
    def make(cls, root: Path, jobs: Sequence[Self]) -> list[Made]:
        """Enrol one after the other."""
        return [job.enrolled(root) for job in jobs]

    def enrolled(self, root: Path) -> Made:
        """The fingerprint; seconds are those of extraction alone, without the training of other models."""
        data, method = load_dataset(self.data), catalog.method(self.method)
        controls: dict[str, list[Model]] = {}
        for entry in self.controls:
            controls.setdefault(entry.kind, []).append(opened(root, entry))
        material = Material(
            data.inputs,
            data.labels,
            unrelated=[opened(root, e) for e in self.spent],
            derived=[opened(root, e) for e in self.craft],
            surrogates=[opened(root, e) for e in self.surrogates],
            controls=controls,
            bounds=data.bounds,
            levels=data.levels,
            content=data.content,
            held_out=(data.test_inputs, data.test_labels),
        )
        owner = opened(root, self.owner)
        owner.card = replace(owner.card, fidelity=_timeless(owner.card.fidelity))
        started = perf_counter()
        fp = method.extract(owner, material, seed=self.seed, threats=tuple(controls))
        return self.finished(root, fp, perf_counter() - started)


@dataclass(frozen=True)
class Forge(_AboutOwner):
    """An accuser forges a fingerprint; the judge asks its probes to calibrators that he trained himself."""

    claim: str = ""
    surrogates: tuple[Entry, ...] = ()
    accused: Entry | None = None

    @cached_property
    def digest(self) -> str:
        """Digest of the claim, the models and the data."""
        known = [self.claim, self.method, self.seed, self.rung, load_dataset(self.data).digest]
        accused = (self.accused,) if self.accused else ()
        return sha256(canonical_json(["forge", known, self.ids(self.surrogates, accused)]).encode())

    @property
    def label(self) -> str:
        """What is being done."""
        return f"forge {self.claim.partition('(')[0]}"

    @property
    def files(self) -> tuple[str, ...]:
        """The weights of everybody who takes part."""
        accused = (self.accused,) if self.accused else ()
        return weight_files((self.owner, *self.calibrators, *self.surrogates, *accused))

    @classmethod
    def make(cls, root: Path, jobs: Sequence[Self]) -> list[Made]:
        """Forge one after the other."""
        return [job.forged(root) for job in jobs]

    def forged(self, root: Path) -> Made:
        """The forged fingerprint with the judge's own null."""
        data = load_dataset(self.data)
        material = Material(
            data.inputs,
            data.labels,
            unrelated=[opened(root, e) for e in self.surrogates],
            bounds=data.bounds,
            levels=data.levels,
            content=data.content,
            held_out=(data.test_inputs, data.test_labels),
        )
        accused = opened(root, self.accused) if self.accused else None
        accuser = opened(root, self.owner)
        accuser.card = replace(accuser.card, fidelity=_timeless(accuser.card.fidelity))
        started = perf_counter()
        fp = catalog.claim(self.claim).apply(
            accuser,
            material,
            catalog.method(self.method),
            np.random.default_rng(self.seed),
            accused=accused,
        )
        return self.finished(root, fp, perf_counter() - started)


@dataclass(frozen=True)
class Trial:
    """One suspect asked one fingerprint's probes and judged at every level; serving defences are put on here.

    ``fingerprint`` and ``null`` are files of the store; ``data`` and ``companion`` are the thief's, for defences
    that need them. ``access`` is what the suspect shows: labels, scores, or weights as well.
    """

    fingerprint: str
    null: str
    suspect: Entry
    data: str
    seed: int = 0
    serving: str = ""
    companion: Entry | None = None
    access: str = "labels"

    @cached_property
    def digest(self) -> str:
        """Digest of fingerprint, null, suspect and defence."""
        companion = self.companion.card.id if self.companion else None
        defence = [self.serving, self.seed, companion, load_dataset(self.data).digest] if self.serving else []
        files = [self.fingerprint, self.null]
        return sha256(canonical_json(["trial/2", files, self.suspect.card.id, defence, self.access]).encode())

    @property
    def label(self) -> str:
        """What is being done."""
        return f"ask {self.suspect.kind}"

    @property
    def bundle(self) -> str:
        """Suspects of one fingerprint share the work of opening it."""
        return self.null

    @property
    def files(self) -> tuple[str, ...]:
        """What it reads."""
        models = (self.suspect, self.companion) if self.companion else (self.suspect,)
        return (self.fingerprint, self.null, *weight_files(models))

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Only defences look at data, but every suspect is measured on it."""
        return (self.data,)

    @classmethod
    def make(cls, root: Path, jobs: Sequence[Self]) -> list[Made]:
        """Judge one suspect after the other with one opened fingerprint and null."""
        fp, null = load_fingerprint(root / jobs[0].fingerprint), load_null(root / jobs[0].null)
        method = catalog.method(fp.method)
        return [Made(job.row(root, method, fp, null)) for job in jobs]

    def row(self, root: Path, method: Method, fp: Fingerprint, null: Null) -> dict[str, Any]:
        """Everything the table needs of one suspect; a suspect that cannot be asked says why."""
        suspect = opened(root, self.suspect)
        if self.serving:
            material = thief(self.data, companion=opened(root, self.companion) if self.companion else None)
            attack = catalog.attack(self.serving)
            suspect = attack.apply(suspect, material, np.random.default_rng(self.seed))
        state: dict[str, Any] = {"model": self.suspect.card.id, "fidelity": self.fidelity(suspect)}
        if "diverged" in state["fidelity"]:
            return {**state, "state": "diverged"}
        started = perf_counter()
        try:
            metered = Metered(suspect, only=SHOWN[self.access])
            seen = method.in_order(fp, metered, method.observe(fp, metered))
        except (ModelError, UsageError) as error:
            return {**state, "state": "not-applicable", "why": str(error)}
        found = judged(method, fp, null, seen)
        ended = {"state": "destroyed" if destroyed(state["fidelity"]) else "fine", "seconds": perf_counter() - started}
        return {**state, **ended, **found}

    def fidelity(self, suspect: Model) -> dict[str, float]:
        """What the attacks cost: those on the weights by the stored card, a defence by its own."""
        stored = dict(self.suspect.card.fidelity)
        if not self.serving:
            return stored
        data = load_dataset(self.data)
        own = dict(suspect.card.fidelity) or held_out(suspect, data.test_inputs, data.test_labels)
        if stored.get("accuracy_before") is not None and "accuracy" in own:  # the loss of both together
            own["accuracy_before"] = stored["accuracy_before"]
            own["accuracy_lost"] = own["accuracy_before"] - own["accuracy"]
        return {**stored, **own}


def observed_null(root: Path, fp: Fingerprint, calibrators: Sequence[Entry], rung: str) -> Null:
    """Ask every calibrator the fingerprint's probes."""
    method = catalog.method(fp.method)
    seen = [method.asked(opened(root, entry), fp.probes, fp.arrays) for entry in calibrators]
    return Null("unrelated", tuple(seen), rung, f"{len(seen)} models of a study, {rung}")


def judged(method: Method, fp: Fingerprint, null: Null, seen: Observation) -> dict[str, Any]:
    """Verdicts at every level with early stopping, and figures that do not depend on a level."""
    stick = yardstick_for(method, fp, null, seen)
    path = stick.shown(stick.path(seen))
    verdicts = {f"{alpha:g}": early_verdict(method, fp, null, stick, seen, alpha) for alpha in ALPHAS}
    same = (seen.answers.labels == fp.answers.labels) & (seen.answers.status == Status.OK)
    rates = [
        float(np.mean((o.answers.labels == fp.answers.labels) & (o.answers.labels >= 0))) for o in null.observations
    ]
    return {
        "outcome": {level: v.outcome for level, v in verdicts.items()},
        "queries": {level: v.asked for level, v in verdicts.items()},
        "p": {level: v.p_value for level, v in verdicts.items()},
        "ruled_out": {level: list(v.ruled_out) for level, v in verdicts.items()},
        "sees": {level: sorted(set(v.power) - set(v.blind_to)) for level, v in verdicts.items()},
        "flags": sorted({flag for v in verdicts.values() for flag in v.flags}),
        "score": round(float(path[-1]), 9) if len(path) else None,
        "path": [round(float(s), 6) for s in path],
        "agreement": float(same.mean()),
        "answered": float(np.mean(seen.answers.status == Status.OK)),
        "bits": bits_per_query(float(same.mean()), max(rates, default=0.0), len(seen.asked)),
        "asked": len(seen.asked),
        "m": null.m,
        "observation": seen.digest,
    }


def early_verdict(
    method: Method, fp: Fingerprint, null: Null, stick: Yardstick, seen: Observation, alpha: float
) -> Verdict:
    """The verdict that ``Method.verify`` gives when it stops at the first conviction, from a whole observation."""
    path = stick.path(seen)
    for number, look in enumerate(stick.looks, start=1):
        if stick.convicts(path[:, :number], alpha):
            verdict = method.judge(fp, seen.only(fp.probes.ids[:look]), null, alpha=alpha)
            if verdict.outcome == "match":
                return verdict
    return method.judge(fp, seen, null, alpha=alpha)


def _timeless(fidelity: Mapping[str, float]) -> dict[str, float]:
    """What a card measured but seconds: they would make every fingerprint of one seed another one."""
    return {name: value for name, value in fidelity.items() if name != "seconds"}


def _file(folder: str, *digests: str) -> str:
    content = digests[0] if len(digests) == 1 else sha256(canonical_json(list(digests)).encode())
    return f"{folder}/{content.removeprefix('sha256:')}.safetensors"
