"""What a trigger set costs, what it survives, and how many innocents it accuses: ``python -m benchmarks.trigger_set``.

Owners of seeds 41 to 43 were used while the method was written; the figures on file are of others.
"""

import argparse

import numpy as np

from minutia import catalog
from minutia.core.answers import Observation
from minutia.core.fingerprint import Fingerprint, Null
from minutia.core.material import Material
from minutia.core.model import Model, Plan, TrainableModel
from minutia.methods.classifiers.trigger_set import TriggerSet
from minutia.stats.intervals import clopper_pearson
from minutia.storage.data import load_dataset
from minutia.study import zoo

SPEC = "torch:minutia.study.architectures:digits_cnn"
DATA, THIEF = "sklearn:digits?rows=0:900", "sklearn:digits?rows=900:1400"
PLAN = Plan(12, learning_rate=4e-3, reset="everything")
ATTACKS = (
    *("fine_tune_last", "fine_tune_all", "fine_tune_all/adi", "retrain_last", "retrain_all"),
    *("prune", "prune(fraction=0.6)+fine_tune_all", "quantise/int8", "quantise/int4", "noise", "adversarial_training"),
    *("overwrite", "removal_net", "distil", "extract_probabilities", "extract_labels"),
    "extract_labels(inputs=augmented)",
)
COPIES, INNOCENTS = 4, 100


def trained(seed: int) -> TrainableModel:
    """A model of the owner's recipe."""
    data, blank = load_dataset(DATA), catalog.model(SPEC)
    assert isinstance(blank, TrainableModel)
    return blank.trained(data.inputs, data.labels, PLAN, seed)


def measured(fp: Fingerprint, suspect: Model) -> tuple[int, float, float]:
    """Hits, p from labels alone and p from probabilities."""
    method, answers = TriggerSet.from_key(fp.method), suspect.ask(fp.probes)
    whole = Observation(suspect.card, fp.probes.ids, answers, fp.probes.digest)
    labels, scores = (method.judge(fp, whole.showing(most), Null.none()).p_value for most in (0, whole.shows))
    assert labels is not None
    assert scores is not None
    return int(np.sum(answers.labels == fp.arrays["labels"])), labels, scores


def rate(ps: list[float], alpha: float = 0.01) -> str:
    """How many of these p-values convict, with the interval over models."""
    hits = sum(p <= alpha for p in ps)
    low, high = clopper_pearson(hits, len(ps))
    return f"{hits}/{len(ps)} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Mark, attack, ask innocents, print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[51, 52, 53])
    parser.add_argument("--from-scratch", action="store_true")
    options = parser.parse_args()
    data, his = load_dataset(DATA), zoo.thief(THIEF, companion=trained(7))
    material = Material(data.inputs, data.labels, levels=data.levels, held_out=(data.test_inputs, data.test_labels))
    found: dict[str, list[tuple[int, float, float]]] = {key: [] for key in ATTACKS}
    innocents: list[tuple[int, float, float]] = []
    for seed in options.seeds:
        owner = trained(1000 * seed)
        method = TriggerSet(from_scratch=options.from_scratch)
        model, fp = method.embed(owner, material, seed=2**200 + seed)
        cost = {name: round(value, 4) for name, value in model.card.fidelity.items()}
        print(f"owner {seed}: {cost}", flush=True)
        for key in ATTACKS:
            rngs = [np.random.default_rng([seed, i]) for i in range(COPIES)]
            found[key] += [measured(fp, catalog.attack(key).apply(model, his, rng)) for rng in rngs]
        innocents += [measured(fp, trained(1000 * seed + 1 + i)) for i in range(INNOCENTS)]
    print("\n| copies | hits of 100, median [least, most] | labels: p <= .01 | probabilities: p <= .01 |")
    print("|---|---|---|---|")
    for key, rows in found.items():
        hits = sorted(row[0] for row in rows)
        rates = " | ".join(rate([row[which] for row in rows]) for which in (1, 2))
        print(f"| `{key}` | {np.median(hits):.0f} [{hits[0]}, {hits[-1]}] | {rates} |")
    for alpha in (0.01, 0.05):
        rates = " | ".join(rate([row[which] for row in innocents], alpha) for which in (1, 2))
        print(f"| innocents, p <= {alpha} | {np.mean([row[0] for row in innocents]):.1f} on average | {rates} |")


if __name__ == "__main__":
    main()
