"""What every method must do."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from minutia.checks.plugins import SHARED_RULES
from minutia.checks.subjects import NOISE, Trial, Veiled, contents, must, refused, state, without
from minutia.core.access import Access
from minutia.core.answers import Status
from minutia.core.errors import NullError, ProtocolError
from minutia.core.fingerprint import Null
from minutia.core.method import Method
from minutia.storage.files import load_fingerprint, load_null, save_fingerprint, save_null


def the_sealed_part_is_untouched(trial: Trial) -> None:
    """Extracting, verifying and judging are the same for all: no method marks its own homework."""
    for name in ("extract", "verify", "judge", "from_key"):
        own = any(name in vars(cls) for cls in type(trial.method).__mro__ if cls not in Method.__mro__)
        must(not own, trial.method, f"must not override {name!r}: write the hooks enrol, score, observe and path")


def the_same_seed_gives_the_same_digest(trial: Trial) -> None:
    """Extraction repeats: all randomness comes from the generator that ``enrol`` is given."""
    again = trial.extract(seed=0)
    must(again.digest == trial.fp.digest, trial.method, "must use no randomness but ``rng``: seed 0 gave two digests")


def another_seed_gives_other_probes(trial: Trial) -> None:
    """Where the generator is used at all, it must matter; a method that never draws is exempt."""
    rng = np.random.default_rng(0)
    before = str(rng.bit_generator.state)
    trial.method.enrol(trial.owner, trial.bench.material, rng)
    if str(rng.bit_generator.state) != before:
        other = trial.extract(seed=1).probes.digest
        must(other != trial.fp.probes.digest, trial.method, "must draw other probes from another seed")


def extraction_changes_nothing(trial: Trial) -> None:
    """The owner's model and the material are read, never written."""
    before = state(trial.bench.owner), contents(trial.bench.material)
    trial.extract(seed=0)
    after = state(trial.bench.owner), contents(trial.bench.material)
    must(before == after, trial.method, "must leave the model and the material as they are: copy before changing")


def its_needs_are_honest(trial: Trial) -> None:
    """What ``owner_needs`` and ``suspect_needs`` name is enough."""
    method, bench = trial.method, trial.bench
    fp = trial.enrolled(Veiled(bench.owner, method.owner_needs))[1]
    shown = Access.LABELS | method.suspect_needs if Access.TEXT not in method.suspect_needs else method.suspect_needs
    seen = [method.observe(fp, Veiled(m, shown)) for m in bench.innocents]
    null = Null("unrelated", tuple(seen[1:]))
    verdict = method.judge(fp, seen[0], null, alpha=0.1)
    must(verdict.score is not None, method, "must score what ``suspect_needs`` names: add what it reads to it")


def probes_are_what_arrives(trial: Trial) -> None:
    """Array probes are float32, inside the valid box, and unchanged by ``Material.stored``."""
    probes, material = trial.fp.probes, trial.bench.material
    must(len(probes) > 0 or bool(trial.method.reads), trial.method, "must return a probe, or read the weights")
    if not isinstance(probes.content, np.ndarray):
        return
    stored = material.stored(probes.array)
    shaped = probes.array.shape[1:] == material.inputs.shape[1:]
    must(shaped, trial.method, f"must make probes like {material.inputs.shape[1:]}, got {probes.array.shape[1:]}")
    same = probes.array.dtype == np.float32 and np.array_equal(stored, probes.array)
    must(same, trial.method, "must return probes as ``material.stored`` leaves them: that is what a suspect receives")


def scoring_is_pure(trial: Trial) -> None:
    """Judging twice, and judging after a trip through files, gives the same verdict."""
    method, fp, null, seen = trial.method, trial.fp, trial.null, trial.suspect
    first = method.judge(fp, seen, null, alpha=0.1)
    again = method.judge(replace(fp), replace(seen), replace(null), alpha=0.1)
    must(first == again, method, "must give one verdict for one observation: scoring must not draw, keep or change")
    with tempfile.TemporaryDirectory() as folder:
        save_fingerprint(fp, Path(folder, "fp"))
        save_null(null, Path(folder, "null"))
        save_null(Null("unrelated", (seen,)), Path(folder, "seen"))
        (kept,) = load_null(Path(folder, "seen")).observations
        read = method.judge(load_fingerprint(Path(folder, "fp")), kept, load_null(Path(folder, "null")), alpha=0.1)
    must(first == read, method, "must judge from stored arrays alone: keep what it needs in ``Enrolment.arrays``")


def the_path_is_the_score_of_prefixes(trial: Trial) -> None:
    """``path`` is only faster: at every look it equals the score of what was asked until then."""
    fp = trial.fp
    prefixes = [fp.probes.ids[:look] for look in fp.schedule]
    for seen in (*fp.controls["owner"], *trial.null.observations):
        slow = [trial.method.score(fp, seen.only(ids)) for ids in prefixes]
        fast = trial.method.path(fp, seen, prefixes)
        fine = np.shape(fast) == np.shape(slow) and np.allclose(fast, slow, rtol=0, atol=NOISE)
        must(fine, trial.method, "``path`` must equal ``score`` of ``observation.only(prefix)`` at every look")


def the_owner_scores_highest(trial: Trial) -> None:
    """The owner's own model, asked again, is at least as close as any innocent one: larger means closer.

    Whether data was used is exempt: an honest model of the same data uses it as much as the owner's does.
    """
    if trial.method.question == "data-use":
        return
    own = trial.score(trial.fp.controls["owner"][0])
    best = max(trial.score(seen) for seen in trial.null.observations)
    must(own >= best - NOISE, trial.method, f"must score its own model highest, got {own:g} and an innocent {best:g}")


def refusing_never_helps(trial: Trial) -> None:
    """Refused, truncated and invalid answers count as no match, whichever questions a suspect chooses for them."""
    rng = np.random.default_rng(0)
    for seen in (*trial.fp.controls["owner"], *trial.null.observations[:3]):
        unlike = np.flatnonzero(seen.answers.labels != trial.fp.answers.labels)
        for rows in (unlike, rng.permutation(len(seen.asked))[::3], np.arange(len(seen.asked))):
            for status in (Status.REFUSED, Status.TRUNCATED, Status.INVALID):
                hidden = trial.score(without(seen, rows, status))
                fine = hidden <= trial.score(seen) + NOISE
                must(fine, trial.method, f"must count {status.name} as no match: hiding answers raised the score")


def the_order_of_the_null_is_irrelevant(trial: Trial) -> None:
    """Null models are a set: in another order they give the same verdict."""
    null = trial.null
    for seen in (trial.suspect, *trial.fp.controls["owner"]):
        straight, turned = (
            replace(trial.method.judge(trial.fp, seen, given, alpha=0.1), null_digest="")
            for given in (null, replace(null, observations=null.observations[::-1]))
        )
        must(straight == turned, trial.method, "must not depend on the order of the null models")


def spent_models_cannot_calibrate(trial: Trial) -> None:
    """A null model that screened the probes is refused with a NullError."""
    spent = tuple(trial.method.observe(trial.fp, m) for m in trial.bench.material.unrelated[:1])
    null = replace(trial.null, observations=trial.null.observations + spent)
    message = "must record the models it was given as spent: a null with one of them was accepted"
    refused(lambda: trial.method.judge(trial.fp, trial.suspect, null), NullError, trial.method, message)


def other_probes_are_another_experiment(trial: Trial) -> None:
    """An observation of other probes is refused with a ProtocolError."""
    foreign = replace(trial.suspect, protocol="sha256:" + 64 * "0")
    message = "must refuse an observation of other probes"
    refused(lambda: trial.method.judge(trial.fp, foreign, trial.null), ProtocolError, trial.method, message)


def p_never_falls_below_its_floor(trial: Trial) -> None:
    """No score, however high, is worth more than 1/(m+1); an exact null has a floor of its own."""
    floor = 0.0 if trial.method.is_exact else 1 / (1 + trial.null.m)
    for seen in (*trial.fp.controls["owner"], trial.suspect):
        found = trial.method.judge(trial.fp, seen, trial.null, alpha=0.1)
        fine = found.p_value is not None and found.p_floor is not None and found.p_value >= found.p_floor >= floor
        must(fine, trial.method, f"must give p >= {floor:g}, got {found.p_value} with the floor {found.p_floor}")


# --- attacks


METHOD_RULES: tuple[Callable[[Trial], None], ...] = (
    *SHARED_RULES,
    the_sealed_part_is_untouched,
    the_same_seed_gives_the_same_digest,
    another_seed_gives_other_probes,
    extraction_changes_nothing,
    its_needs_are_honest,
    probes_are_what_arrives,
    scoring_is_pure,
    the_path_is_the_score_of_prefixes,
    the_owner_scores_highest,
    refusing_never_helps,
    the_order_of_the_null_is_irrelevant,
    spent_models_cannot_calibrate,
    other_probes_are_another_experiment,
    p_never_falls_below_its_floor,
)
