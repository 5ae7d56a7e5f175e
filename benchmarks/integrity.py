"""How many tampered models ``minutia check`` catches, and how many benign runs it takes for tampered ones.

``python -m benchmarks.integrity`` prints one table per access. Owners of seeds 41 to 43 were used while the method was
written; the figures on file are of others. Changed models and benign runs are drawn anew, and three kinds of change and
two ways of running are none that the fingerprint was enrolled with.
"""

import argparse
import copy
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

# Threads that wait by spinning slow each other down; this must stand before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from minutia import api, catalog
from minutia.attacks.triggers import Overwrite
from minutia.core.answers import Answers
from minutia.core.fingerprint import Fingerprint, Null
from minutia.core.material import Material
from minutia.core.model import Model, Plan, TrainableModel
from minutia.core.probe import ProbeSet
from minutia.models.reruns import Rerun, reruns
from minutia.models.torch import TorchModel
from minutia.stats.intervals import clopper_pearson
from minutia.storage.data import Dataset, load_dataset
from minutia.study import integrity

DATA = "sklearn:digits?rows=0:900"
ARCHITECTURES = ("digits_cnn", "digits_mlp")
EACH, TROJANS, BENIGN = 10, 4, 120
VIEWS = ("logits", "scores", "scores to 4 decimals", "scores to 2 decimals", "largest score", "labels")


class Shown:
    """A model that shows no more than some view of its answers."""

    def __init__(self, model: Model, view: str) -> None:
        self.spec, self.card, self.access = model.spec, model.card, model.access
        self._model, self._view = model, view

    def ask(self, probes: ProbeSet) -> Answers:
        answers = self._model.ask(probes)
        if self._view == "logits":
            return answers
        if self._view == "labels":
            return Answers.from_labels(answers.labels)
        if self._view == "largest score":
            return answers.showing(1)
        assert answers.scores is not None
        scores = answers.scores if self._view == "scores" else np.round(answers.scores, int(self._view.split()[2]))
        return Answers(answers.status, answers.labels, scores.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Trial:
    """One owner: his fingerprint, tampered models by kind, and benign runs."""

    fp: Fingerprint
    tampered: Mapping[str, list[Model]]
    benign: list[Model]


def trial(architecture: str, seed: int, *, allow: tuple[str, ...] = ()) -> Trial:
    """Train, enrol, tamper. Tampered models that move no test output beyond its tolerance are left out."""
    data = load_dataset(DATA)
    fresh = catalog.model(f"torch:minutia.study.architectures:{architecture}")
    assert isinstance(fresh, TorchModel)
    owner = fresh.trained(data.inputs, data.labels, Plan(12, 64, 4e-3, reset="everything"), seed)
    fp = api.enrol_integrity(owner, data, catalog.method("sensitive_samples"), allow=allow, seed=seed)
    rng = np.random.default_rng([seed, 99])
    runs = reruns(owner, data.test_inputs, rng, allow=allow, count=BENIGN)
    return Trial(fp, dict(tampered(owner, data, rng, runs, allow)), [*runs, *unseen(owner)])


def unseen(owner: TorchModel) -> list[Model]:
    """Ways of running that were not enrolled: four threads, and double precision."""

    @contextmanager
    def threads() -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(4)
        yield
        torch.set_num_threads(before)

    class Double(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(owner.module).double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.double()).float()

    nothing = np.empty((0, 1), np.float32)
    four = Rerun(owner, "four threads", rows=10, before=0, filler=nothing, around=threads)
    return [four, TorchModel(Double())]


def tampered(
    owner: TrainableModel, data: Dataset, rng: np.random.Generator, runs: list[Model], allow: tuple[str, ...]
) -> Iterator[tuple[str, list[Model]]]:
    """Kinds of the enrolled battery from other draws, and three that were never enrolled."""
    held = (data.test_inputs, data.test_labels)
    material = Material(data.inputs, data.labels, bounds=data.bounds, levels=data.levels, held_out=held)
    made = integrity.battery(owner, material, rng, allow=allow, each=EACH)
    spread = [integrity.trojaned(owner, material, rng, spread=True).model for _ in range(TROJANS)]
    made["trojan, scattered trigger"] = [model for model in spread if model is not None]
    made["overwrite"] = [Overwrite(epochs=2).apply(owner, material, rng) for _ in range(2)]
    made["bit flip"] = [flipped(owner, rng) for _ in range(EACH)]
    yield from integrity.mattering(owner, made, data.test_inputs, runs).items()


def flipped(owner: TrainableModel, rng: np.random.Generator) -> Model:
    """One bit of one weight turned: the sign, a low bit of the exponent or a high one of the mantissa."""
    tensors = dict(owner.tensors())
    name = list(tensors)[rng.choice(len(tensors), p=np.array([w.size for w in tensors.values()]) / _size(tensors))]
    changed = np.array(tensors[name], dtype=np.float32)
    bits = changed.reshape(-1).view(np.uint32)
    bits[rng.integers(len(bits))] ^= np.uint32(1 << int(rng.choice([31, 24, 23, 22, 21])))
    return owner.rebuilt({name: changed})


def _size(tensors: Mapping[str, np.ndarray]) -> int:
    return sum(w.size for w in tensors.values())


def outcomes(found: Trial, view: str) -> dict[str, dict[str, int]]:
    """Verdicts per kind of change, and on benign runs."""
    method = catalog.method(found.fp.method)
    counted: dict[str, dict[str, int]] = {}
    for kind, models in {**found.tampered, "benign": found.benign}.items():
        row = counted.setdefault(kind, {"match": 0, "no-match": 0, "inconclusive": 0})
        for model in models:
            verdict = method.verify(found.fp, Shown(model, view), Null.none())
            assert verdict.asked <= 10
            row[verdict.outcome] += 1
    return counted


def added(first: Mapping[str, Mapping[str, int]], second: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Counts of two trials."""
    kinds = dict.fromkeys([*first, *second])
    names = ("match", "no-match", "inconclusive")
    return {k: {n: first.get(k, {}).get(n, 0) + second.get(k, {}).get(n, 0) for n in names} for k in kinds}


def table(view: str, counted: Mapping[str, Mapping[str, int]]) -> str:
    """One line per kind: caught, called intact, undecided."""
    lines = [f"\n{view}", f"{'kind':<28}{'models':>7}{'changed':>9}{'intact':>8}{'undecided':>11}"]
    for kind, row in counted.items():
        lines.append(f"{kind:<28}{sum(row.values()):>7}{row['no-match']:>9}{row['match']:>8}{row['inconclusive']:>11}")
    total = {n: sum(row[n] for k, row in counted.items() if k != "benign") for n in ("match", "no-match")}
    models = sum(sum(row.values()) for k, row in counted.items() if k != "benign")
    benign = counted["benign"]
    alarms, runs = benign["no-match"], sum(benign.values())
    low, high = clopper_pearson(total["no-match"], models)
    lines.append(
        f"caught {total['no-match']} of {models} ({low:.3f} to {high:.3f}), called intact {total['match']}; "
        f"false alarms {alarms} of {runs} (at most {clopper_pearson(alarms, runs).high:.3f})"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.integrity", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[44, 45, 46, 47, 48])
    parser.add_argument("--allow", nargs="*", default=[], help="number formats that the owner lists as benign")
    options = parser.parse_args()
    counted: dict[str, dict[str, dict[str, int]]] = {view: {} for view in VIEWS}
    for seed in options.seeds:
        for architecture in ARCHITECTURES:
            found = trial(architecture, seed, allow=tuple(options.allow))
            for view in VIEWS:
                counted[view] = added(counted[view], outcomes(found, view))
            print(f"{architecture} of seed {seed}", file=sys.stderr, flush=True)
    for view, rows in counted.items():
        print(table(view, rows))


if __name__ == "__main__":
    main()
