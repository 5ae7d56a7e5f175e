"""Bench: a study file to models, attacks, verdicts and one table.

The stages follow one another because each needs the models of the one before: models from scratch, copies, enrolment,
copies by thieves who know the probes, false claims, verdicts. Inside a stage everything runs at the same time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minutia import catalog
from minutia.core.attack import parts, state_of
from minutia.core.errors import FileError, ModelError, UsageError
from minutia.core.fingerprint import HARDEST_RUNG
from minutia.storage.data import halves
from minutia.storage.models import Entry, ModelStore
from minutia.study import claims, population, zoo
from minutia.study.battery import knows_probes
from minutia.study.cases import Enrol, Trial
from minutia.study.file import DISJOINT, Study, Wanted, study_attacks
from minutia.study.house import ANCESTOR, RESERVE, House, Suspect
from minutia.study.table import About, table
from minutia.study.work import Engine, Progress, perform

FAMILY_SPENT = 20
"""Spent models of a family: there are no copies to learn from, so they only screen."""
Told = Callable[[str], Progress]


@dataclass(frozen=True)
class Result:
    """What a study found: its table, and the rows behind it."""

    table: dict[str, Any]
    rows: list[dict[str, Any]]


def run(study: Study, root: Path, engine: Engine, *, told: Told | None = None) -> Result:
    """Run a study, or what is left of it, and return its table.

    Every finished job is kept in ``root``; the same call after a kill does only the rest and gives the same table.
    """
    store = ModelStore(root)
    if not store.own:
        raise FileError(
            f"expected a folder that was made here, got {root}, whose journal may name code: choose another with --dir"
        )
    bench = _Bench(study, store, engine, told or (lambda title: lambda done, total, what: None))
    houses = bench.houses()
    bench.copies(houses)
    bench.enrol(houses)
    bench.adapt(houses)
    bench.reserve(houses)
    accused = claims.run(study, store, engine, houses, bench.told("false claims"))
    rows = bench.trials(houses)
    about = About(
        study.name,
        tuple(study.seeds),
        study.baselines,
        study.facts(),
        datetime.now(UTC).date().isoformat(),
        [
            {"method": key, "seed": h.seed, **found}
            for h in houses
            if h.name == "scratch"
            for key, found in h.enrolled.items()
        ],
        accused,
    )
    return Result(table(about, rows), rows)


@dataclass(frozen=True)
class _Bench:
    """One run: the study, where results are kept, and who does the work."""

    study: Study
    store: ModelStore
    engine: Engine
    told: Told

    # --- models from scratch

    def houses(self) -> list[House]:
        """Owners, unrelated models of every rung, thieves' companions, and the children of public ancestors."""
        tasks = {seed: self._founders(seed) for seed in self.study.seeds}
        built = self._build([task for some in tasks.values() for _, task in some], "models")
        found, houses, ancestors = iter(built), [], {}
        for seed, some in tasks.items():
            by_role: dict[str, list[Entry]] = {}
            for role, _ in some:
                by_role.setdefault(role, []).append(next(found))
            ancestors[seed] = by_role.get("ancestor", [])
            houses.append(self._house(seed, by_role))
        families = self._families({seed: some[0] for seed, some in ancestors.items() if some})
        for house in (*houses, *families):
            _check_split(house)
        return [*houses, *families]

    def _founders(self, seed: int) -> list[tuple[str, zoo.Task]]:
        study, counts = self.study, self.study.counts
        plan, like, data = study.model.plan(), study.model.architecture, study.data.owner
        found = [("owner", zoo.Task("owner", "owner", like, data, zoo.seed_of(seed, "owner"), plan))]
        recipe = population.Recipe(like, data, plan)
        found += [(t.role, t) for t in population.null_tasks(recipe, counts.calibrators, counts.spent, seed)]
        others = [(study.model.other, data, counts.spent_other)]
        others += [(like, half, counts.spent_halves) for half in halves(data)]
        for spec, on, number in others:
            some = zoo.unrelated_tasks(spec, on, number, role="spent", rung=f"{spec} {on}", plan=plan, seed=seed)
            found += [("spent", task) for task in some]
        thief = zoo.unrelated_tasks(like, study.data.thief, 1, role="companion", rung=DISJOINT, plan=plan, seed=seed)
        found += [("companion", task) for task in thief]
        for rung, (spec, on, how) in study.rungs().items():
            number = counts.innocents if rung == HARDEST_RUNG else counts.per_rung
            some = zoo.unrelated_tasks(spec, on, number, role="innocent", rung=rung, plan=how, seed=seed)
            found += [("innocent", task) for task in some]
        if counts.per_rung and study.ancestor_epochs:
            public = zoo.Task("ancestor", "ancestor", like, study.data.thief, zoo.seed_of(seed, "ancestor"), plan)
            found.append(("ancestor", public))
        return found

    def _house(self, seed: int, by_role: dict[str, list[Entry]]) -> House:
        house = House(
            seed,
            "scratch",
            by_role["owner"][0],
            _sound(by_role.get("spent", [])),
            _sound(by_role["calibrator"]),
            HARDEST_RUNG,
            by_role["companion"][0],
        )
        for number, entry in enumerate(by_role["innocent"]):
            house.suspects.append(Suspect(seed, "unrelated", entry.kind, entry, number))
        return house

    def _families(self, ancestors: dict[int, Entry]) -> list[House]:
        """Owners that are children of a public ancestor, with other children as null, spent models and innocents."""
        counts = self.study.counts
        plan = replace(self.study.model.plan(), epochs=self.study.ancestor_epochs)
        sizes = {
            "owner": 1,
            "spent": min(counts.spent, FAMILY_SPENT),
            "calibrator": counts.calibrators,
            "innocent": counts.per_rung,
        }
        tasks = [
            zoo.Task(
                role,
                ANCESTOR,
                parent.spec,
                self.study.data.owner,
                zoo.seed_of(seed, ANCESTOR, role, i),
                plan,
                "",
                parent,
            )
            for seed, parent in ancestors.items()
            for role, number in sizes.items()
            for i in range(number)
        ]
        built, houses = iter(self._build(tasks, "children of an ancestor")), []
        for seed in ancestors:
            by_role = {role: [next(built) for _ in range(number)] for role, number in sizes.items()}
            sound = {role: _sound(some) for role, some in by_role.items()}
            house = House(seed, "ancestor", by_role["owner"][0], sound["spent"], sound["calibrator"], ANCESTOR)
            house.suspects = [
                Suspect(seed, "unrelated", ANCESTOR, entry, i) for i, entry in enumerate(by_role["innocent"])
            ]
            houses.append(house)
        return houses

    # --- copies

    def copies(self, houses: Sequence[House]) -> None:
        """Controls and crafting copies, then every attack that needs no fingerprint: on owners and on innocents."""
        scratch = [house for house in houses if house.name == "scratch"]
        helpers = [(house, task) for house in scratch for task in self._own_copies(house)]
        wanted = [pair for house in scratch for pair in self._attacked(house, adaptive=False)]
        tasks = [task for _, task in helpers] + [task for _, task in wanted if task is not None]
        made = iter(zoo.try_build(self.store, tasks, self.engine, self.told("copies")))
        for house, task in helpers:
            if isinstance(entry := next(made), Entry):
                roles = {"control": house.controls, "craft": house.craft, "surrogate": house.surrogates}
                roles[task.role].append(entry)
        self._put(scratch, wanted, made)

    def _own_copies(self, house: House) -> list[zoo.Task]:
        """Copies that the owner makes of his own model on his own data: controls, and such as methods learn from."""
        study, counts = self.study, self.study.counts
        tasks = population.copy_tasks(house.owner, study.data.owner, counts.controls, house.seed, study.threats)
        if not counts.surrogates:
            return tasks
        tasks = [task for task in tasks if task.role == "control"]
        ways = population.surrogate_tasks(
            house.owner,
            study.data.owner,
            counts.surrogates,
            house.seed,
            student=study.model.other,
            foreign=study.data.foreign,
        )
        return tasks + ways

    def adapt(self, houses: Sequence[House]) -> None:
        """Attacks by thieves who know the probes of one method."""
        scratch = [house for house in houses if house.name == "scratch"]
        wanted = [pair for house in scratch for pair in self._attacked(house, adaptive=True)]
        tasks = [task for _, task in wanted if task is not None]
        made = iter(zoo.try_build(self.store, tasks, self.engine, self.told("thieves who know the probes")))
        self._put(scratch, wanted, made)

    def _put(
        self, houses: Sequence[House], wanted: Sequence[tuple[Suspect, zoo.Task | None]], made: Iterator[Entry | str]
    ) -> None:
        """Hand the finished suspects to their houses; a defence puts nothing but answers on its parent."""
        by_seed = {house.seed: house for house in houses}
        for suspect, task in wanted:
            entry = next(made) if task is not None else suspect.entry
            by_seed[suspect.seed].suspects.append(replace(suspect, entry=entry))

    def _attacked(self, house: House, *, adaptive: bool) -> Iterator[tuple[Suspect, zoo.Task | None]]:
        """Suspects of one house with the task that makes each (none: the parent itself, with a defence in front)."""
        innocents = house.innocents
        for place, wanted in enumerate(study_attacks(self.study)):
            if knows_probes(wanted.key) != adaptive:
                continue
            innocent = 0 if wanted.curve else self.study.counts.attacked_innocents
            parents = [("derived", house.owner)] * wanted.copies
            parents += [("unrelated", innocents[(place + i) % len(innocents)]) for i in range(innocent)]
            for method, disclosed in _known(house).items() if adaptive else [("", "")]:
                for number, (truth, parent) in enumerate(parents):
                    suspect = _suspect(house, parent, truth, wanted, number, method)
                    yield suspect, self._theft(house, suspect, parent, disclosed)

    def _theft(self, house: House, suspect: Suspect, parent: Entry, disclosed: str) -> zoo.Task | None:
        """The task that makes a suspect; none where only the answers change."""
        on_weights, _ = parts(catalog.attack(suspect.attack))
        if on_weights is None:
            return None
        return zoo.Task(
            "suspect",
            suspect.label,
            zoo.architecture(parent.spec),
            self.study.data.thief,
            zoo.seed_of(house.seed, "suspect", on_weights.key, suspect.number),
            attack=on_weights.key,
            parent=parent,
            foreign=self.study.data.foreign,
            companion=house.companion,
            student=self.study.model.other,
            disclosed=disclosed,
        )

    # --- fingerprints and verdicts

    def enrol(self, houses: Sequence[House]) -> None:
        """Every owner with every method."""
        pairs = [(house, catalog.method(key).key) for house in houses for key in self.study.all_methods]
        self._enrol([(house, key, self._enrolment(house, key)) for house, key in pairs], "fingerprints")

    def reserve(self, houses: Sequence[House]) -> None:
        """A second fingerprint of one method: it knows copies that unlearnt the first one."""
        if not self.study.reserve:
            return
        key, data = catalog.method(self.study.reserve).key, self.study.data.owner
        chosen = [h for h in houses if h.name == "scratch" and "fingerprint" in h.enrolled[key]]
        wanted = []
        for house in chosen:
            known, count = house.enrolled[key]["fingerprint"], max(self.study.counts.surrogates, 1)
            wanted.append(population.knowing_tasks(house.owner, data, count, house.seed, known))
        made = iter(self._build([task for tasks in wanted for task in tasks], "copies that unlearnt the first probes"))
        jobs = []
        for house, tasks in zip(chosen, wanted, strict=True):
            more = tuple(next(made) for _ in tasks)
            job = self._enrolment(house, key)
            second = zoo.seed_of(house.seed, "enrol", "reserve")
            job = replace(job, seed=second, craft=(*job.craft, *more))
            jobs.append((house, key + RESERVE, job))
        self._enrol(jobs, "reserves")

    def _enrolment(self, house: House, key: str) -> Enrol:
        return Enrol(
            key,
            house.owner,
            self.study.data.owner,
            tuple(house.calibrators),
            house.rung,
            zoo.seed_of(house.seed, "enrol"),
            tuple(house.spent),
            tuple(house.craft),
            tuple(house.controls),
            tuple(house.surrogates),
        )

    def _enrol(self, wanted: Sequence[tuple[House, str, Enrol]], title: str) -> None:
        jobs = [job for _, _, job in wanted]
        found = perform(self.store, jobs, self.engine, progress=self.told(title), tolerant=True)
        for (house, key, _), value in zip(wanted, found, strict=True):
            trained = sum(e.card.fidelity.get("seconds", 0.0) for e in house.helpers)
            house.enrolled[key] = {**value, "auxiliary_seconds": trained}

    def trials(self, houses: Sequence[House]) -> list[dict[str, Any]]:
        """Every suspect against every fingerprint of its house, as rows."""
        cases = [
            (suspect, key, house.enrolled[key])
            for house in houses
            for key in house.enrolled
            for suspect in house.suspects
            if suspect.meets(key)
        ]
        companions = {house.seed: house.companion for house in houses if house.companion}
        asked = [self._trial(s, found, companions) for s, _, found in cases]
        jobs = [job for job in asked if job is not None]
        made = iter(perform(self.store, jobs, self.engine, progress=self.told("verdicts"), tolerant=True))
        return [
            _row(suspect, key, found if "failed" in found else next(made) if job else {"failed": suspect.entry})
            for (suspect, key, found), job in zip(cases, asked, strict=True)
        ]

    def _trial(self, suspect: Suspect, found: dict[str, Any], companions: dict[int, Entry]) -> Trial | None:
        if "failed" in found or not isinstance(suspect.entry, Entry):
            return None
        return Trial(
            found["fingerprint"],
            found["null"],
            suspect.entry,
            self.study.data.thief,
            zoo.seed_of(suspect.seed, suspect.serving, suspect.number),
            suspect.serving,
            companions.get(suspect.seed) if suspect.serving else None,
            self.study.access,
        )

    def _build(self, tasks: list[zoo.Task], title: str) -> list[Entry]:
        return zoo.build(self.store, tasks, engine=self.engine, progress=self.told(title))


def _row(suspect: Suspect, method: str, found: dict[str, Any]) -> dict[str, Any]:
    """One suspect and one method as plain data."""
    named = {
        name: getattr(suspect, name) for name in ("seed", "truth", "kind", "label", "group", "attack", "curve", "x")
    }
    state = {"state": "failed", "why": str(found["failed"])} if "failed" in found else {}
    who = found.get("model") or f"{suspect.label or suspect.kind} {suspect.number}"
    found = {"fidelity": {}, **found, "number": suspect.number}
    if isinstance(suspect.entry, Entry) and not suspect.serving and "state" in found:
        # Equal weights may have come about in two ways: what it cost stands on the card of this one.
        found["fidelity"] = dict(suspect.entry.card.fidelity)
        if found["state"] in ("fine", "destroyed"):
            found["state"] = state_of(found["fidelity"])
    place = {"x": found["fidelity"].get(suspect.along, suspect.x)}
    return {**named, **place, "method": method, "suspect": f"{who} {suspect.serving}".strip(), **found, **state}


def _suspect(house: House, parent: Entry, truth: str, wanted: Wanted, number: int, method: str) -> Suspect:
    """A suspect that is still to be made: a copy, or an innocent model that goes through the same attack."""
    _, on_answers = parts(catalog.attack(wanted.key))
    return Suspect(
        house.seed,
        truth,
        wanted.label if truth == "derived" else HARDEST_RUNG,
        parent,
        number,
        wanted.label,
        wanted.group,
        wanted.key,
        on_answers.key if on_answers else "",
        wanted.curve,
        wanted.x,
        method,
        wanted.along,
    )


def _sound(entries: Sequence[Entry]) -> list[Entry]:
    """Those whose training did not diverge: a model that answers nothing would count in a null and never match."""
    kept = [entry for entry in entries if not entry.card.fidelity.get("diverged")]
    if entries and len(kept) < len(entries) / 2:
        raise ModelError(
            f"expected trainings that converge, got {len(entries) - len(kept)} of {len(entries)} {entries[0].role} "
            "models that diverged: choose a smaller learning rate"
        )
    return kept


def _known(house: House) -> dict[str, str]:
    """Fingerprint files by method: what a thief may get to know."""
    return {method: found["fingerprint"] for method, found in house.enrolled.items() if "fingerprint" in found}


def _check_split(house: House) -> None:
    """No root may both screen and calibrate, or calibrate and be judged: fit, calibrate and test never meet."""
    innocents = [s.entry for s in house.suspects if isinstance(s.entry, Entry) and s.truth == "unrelated"]
    roles = {"fit": house.spent, "calibrate": house.calibrators, "test": innocents}
    seen: dict[str, str] = {house.owner.card.root: "owner"}
    for role, entries in roles.items():
        for entry in entries:
            if seen.setdefault(entry.card.root, role) != role:
                raise UsageError(
                    f"expected unrelated models of one role each, got {entry.card.root[:19]}… for {role} and "
                    f"{seen[entry.card.root]}: does the training function fix its own seed?"
                )
