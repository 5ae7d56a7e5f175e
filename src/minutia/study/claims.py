"""False claims in a study: an accuser forges a fingerprint, a judge tries innocents with null models of his own."""

from collections.abc import Sequence
from typing import Any

from minutia import catalog
from minutia.methods.classifiers.match_rate import MatchRate
from minutia.stats.nulls import type_one_bound_over
from minutia.storage.models import Entry, ModelStore
from minutia.study.cases import ALPHAS, Forge, Trial
from minutia.study.file import Study
from minutia.study.house import House
from minutia.study.table import rate
from minutia.study.work import Engine, Progress, perform
from minutia.study.zoo import seed_of

PUBLISHED = 0.75
"""Match rate from which published rules accuse (Lukas et al., ICLR 2021, use 0.75), whatever innocents would score."""
ACCUSED = 10
"""Innocents per seed that a claim is tailored to, where the accuser knows his victim."""


def run(
    study: Study, store: ModelStore, engine: Engine, houses: Sequence[House], progress: Progress
) -> list[dict[str, Any]]:
    """Every claim with every match-rate method of the study, or those it names: how often innocents are convicted.

    A claim is probes with labels; of a learnt verifier or a portfolio more would have to be forged.
    The accuser is the house's owner, with the spent models as his surrogates. The judge's calibrators and the innocents
    have taken part in nothing the accuser knows; where the claim is tailored, the accuser knows the accused.
    """
    scratch = [house for house in houses if house.name == "scratch"]
    forged: list[tuple[str, str, House, tuple[Entry, ...], Forge]] = []
    for claim in study.claims:
        for method in filter(_forgeable, study.forged or study.methods):
            for house in scratch:
                forged += [(claim, method, house, *pair) for pair in _forges(study, claim, method, house)]
    values = perform(store, [f[-1] for f in forged], engine, progress=progress, tolerant=True)
    trials = [
        Trial(value["fingerprint"], value["null"], entry, study.data.thief)
        for (_, _, _, innocents, _), value in zip(forged, values, strict=True)
        if "failed" not in value
        for entry in innocents
    ]
    rows = iter(perform(store, trials, engine, progress=progress, tolerant=True))
    found: dict[tuple[str, str], list[tuple[int, list[dict[str, Any]]]]] = {}
    failed: dict[tuple[str, str], str] = {}
    for (claim, method, house, innocents, _), value in zip(forged, values, strict=True):
        if "failed" in value:
            failed[claim, method] = value["failed"]
            continue
        found.setdefault((claim, method), []).append((house.seed, [next(rows) for _ in innocents]))
    return [_claim(*key, groups) for key, groups in found.items()] + [
        {"claim": claim, "method": catalog.method(method).key, "failed": why} for (claim, method), why in failed.items()
    ]


def _forgeable(method: str) -> bool:
    return isinstance(catalog.method(method), MatchRate)


def _forges(study: Study, claim: str, method: str, house: House) -> list[tuple[tuple[Entry, ...], Forge]]:
    """Who is tried with which forgery: all innocents with one, or each accused with one of his own."""
    innocents = tuple(house.innocents)

    def forge(accused: Entry | None, number: int) -> Forge:
        return Forge(
            catalog.method(method).key,
            house.owner,
            study.data.owner,
            tuple(house.calibrators),
            house.rung,
            seed_of(house.seed, claim, number),
            catalog.claim(claim).key,
            tuple(house.spent),
            accused,
        )

    if catalog.claim(claim).tailored:
        return [((entry,), forge(entry, i)) for i, entry in enumerate(innocents[:ACCUSED])]
    return [(innocents, forge(None, 0))]


def _claim(claim: str, method: str, groups: Sequence[tuple[int, list[dict[str, Any]]]]) -> dict[str, Any]:
    """Convictions of innocents by the published rule and by the judge, with the bound that a valid test keeps."""
    rows = [row for _, some in groups for row in some if row.get("state") in ("fine", "destroyed")]
    by_seed: dict[int, int] = {}
    for seed, some in groups:
        by_seed[seed] = by_seed.get(seed, 0) + len(some)
    found: dict[str, Any] = {
        "claim": claim,
        "method": catalog.method(method).key,
        "known_suspect": catalog.claim(claim).tailored,
        "n": len(rows),
        "threshold": rate(sum(row["agreement"] >= PUBLISHED for row in rows), len(rows)),
    }
    for alpha in ALPHAS:
        level = f"{alpha:g}"
        m = rows[0]["m"] if rows else 0
        rejected = sum(row["p"][level] is not None and row["p"][level] <= alpha + 1e-12 for row in rows)
        matched = sum(row["outcome"][level] == "match" for row in rows)
        bound = type_one_bound_over([(n, m) for n in by_seed.values()], alpha) if m else None
        found[level] = {**rate(matched, len(rows)), "rejected": rejected, "bound": bound}
    return found
