"""Type-I error of verify on fresh trained innocents, and power per kind of theft, on one seed of the demo's models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minutia import catalog
from minutia.core.answers import Observation
from minutia.core.digest import Array
from minutia.core.fingerprint import HARDEST_RUNG, Fingerprint, Null
from minutia.core.method import Method
from minutia.core.model import Model
from minutia.core.yardstick import Yardstick, yardstick
from minutia.stats.nulls import redrawn_rate, type_one_bound
from minutia.storage.data import load_dataset
from minutia.storage.models import ModelStore
from minutia.study import demo, zoo

FRESH = 300
REDRAWS = 20_000
MATCH_REDRAWS = 200
ALPHAS = (0.01, 0.05)


@dataclass(frozen=True, eq=False)
class Laboratory:
    """The demo's models of one seed, and fresh innocents of the deciding rung that nothing else has seen."""

    fp: Fingerprint
    null: Null
    suspects: tuple[demo.Case, ...]
    fresh: tuple[Model, ...]


def laboratory(root: Path, method: Method, seed: int, fresh: int = FRESH) -> Laboratory:
    """Train (or find) everything of one seed."""
    result = demo.run(root, method=method, seed=seed)
    store = ModelStore(root / "zoo")
    tasks = zoo.unrelated_tasks(
        demo.ARCHITECTURE, demo.OWNER_DATA, fresh, role="fresh", rung=HARDEST_RUNG, plan=demo.PLAN, seed=seed
    )
    models = tuple(zoo.open_entry(store, e) for e in zoo.build(store, tasks))
    return Laboratory(result.fingerprint, result.null, result.cases, models)


def type_one(lab: Laboratory, seed: int) -> dict[str, Any]:
    """False alarms among fresh innocents, looking early and asking all, and the mean over redrawn null sets."""
    method = catalog.method(lab.fp.method)
    seen = [Observation(m.card, lab.fp.probes.ids, m.ask(lab.fp.probes), lab.fp.probes.digest) for m in lab.fresh]
    found: dict[str, Any] = {"innocents": len(seen), "m": lab.null.m}
    stick = yardstick(method, lab.fp, lab.null)
    paths = np.array([stick.path(o) for o in (*lab.null.observations, *seen)])
    pool = np.array([stick.standardised(path).max() for path in paths])
    last = np.array([stick.shown(path)[-1] for path in paths])
    for alpha in ALPHAS:
        early = [method.verify(lab.fp, m, lab.null, alpha=alpha) for m in lab.fresh]
        whole = [method.judge(lab.fp, o, lab.null, alpha=alpha) for o in seen]
        found[f"{alpha:g}"] = {
            "bound": type_one_bound(len(seen), lab.null.m, alpha),
            "matches_early": sum(v.outcome == "match" for v in early),
            "matches_all": sum(v.outcome == "match" for v in whole),
            "rejections_early": sum(v.p_value is not None and v.p_value <= alpha for v in whole),
            "rejections_last_look": _rejections(last, lab.null.m, alpha),
            "redrawn_matches": _redrawn_matches(stick, paths, alpha, np.random.default_rng(seed)),
            "redrawn_path": redrawn_rate(pool, lab.null.m, alpha, REDRAWS, np.random.default_rng(seed)),
            "redrawn_last_look": redrawn_rate(last, lab.null.m, alpha, REDRAWS, np.random.default_rng(seed)),
        }
    return found


def power(lab: Laboratory) -> dict[str, dict[str, Any]]:
    """Matches, queries and accuracy lost per kind of theft and rung."""
    kinds: dict[str, dict[str, Any]] = {}
    for case in lab.suspects:
        lost = case.card.fidelity.get("accuracy_lost", 0.0)
        entry = kinds.setdefault(case.kind, {"truth": case.truth, "n": 0, "match": 0, "no-match": 0, "queries": []})
        entry["n"] += 1
        entry["match"] += case.verdict.outcome == "match"
        entry["no-match"] += case.verdict.outcome == "no-match"
        entry["queries"].append(case.verdict.asked)
        entry.setdefault("lost", []).append(lost)
    return kinds


def owner(root: Path, seed: int) -> tuple[Model, Array]:
    """The owner's model of one seed and its inputs."""
    return demo.owner(ModelStore(root / "zoo"), seed), load_dataset(demo.OWNER_DATA).inputs


def _redrawn_matches(stick: Yardstick, paths: Array, alpha: float, rng: np.random.Generator) -> float:
    """Mean share of matches over redrawn null sets: calibrators drawn from all innocents, the others judged."""
    rates = []
    for _ in range(MATCH_REDRAWS):
        order = rng.permutation(len(paths))
        drawn = stick.against(paths[order[: stick.m]])
        rates.append(np.mean([drawn.convicts(path, alpha) for path in paths[order[stick.m :]]]))
    return float(np.mean(rates))


def _rejections(scores: Array, m: int, alpha: float) -> int:
    """Rank p-values of the scores after the first m against those."""
    null, fresh = scores[:m], scores[m:]
    p = (1 + (null[None] >= fresh[:, None]).sum(axis=1)) / (1 + m)
    return int((p <= alpha + 1e-12).sum())
