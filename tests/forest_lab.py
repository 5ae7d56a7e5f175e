"""Random forests of tiny language models: who was made from whom, how, and by which optimiser is known."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tests.lineage_lab import Shape, TinyLlama, batches, loaded, lora, tensors
from torch import nn
from torch.nn import functional

from minutia.attacks.launder_transformer import averaged, pruned, quantised

TEXTS = ("shakespeare", "moby", "quijote", "testament")
SHAPES = (Shape(32, 96, 3, 4, 2), Shape(40, 96, 2, 4, 4), Shape(32, 80, 2, 4, 2))
LEAVES = ("int8", "int4", "pruned")


@dataclass(frozen=True)
class Recipe:
    """How a model was trained: ``optimiser`` is sgd, adam (decay as L2 penalty) or adamw (decay apart)."""

    optimiser: str
    rate: float
    decay: float
    steps: int
    text: str


@dataclass(frozen=True)
class Made:
    """One model: its name, its parents (none of a root, two of a merge), how it was made, and from which root."""

    name: str
    parents: tuple[str, ...]
    kind: str
    root: str
    detail: str = ""
    share: float = 1.0


@dataclass(frozen=True)
class Truth:
    """A forest: its models in the order in which they were made; ``same_start`` are roots of one initialisation."""

    seed: int
    models: tuple[Made, ...]
    same_start: tuple[tuple[str, str], ...] = ()

    @property
    def edges(self):
        """All (parent, child)."""
        return {(parent, made.name) for made in self.models for parent in made.parents}


def draw_recipe(rng, *, fresh):
    """A recipe at random, of a first training or of a continued one."""
    optimiser = str(rng.choice(["adamw", "adamw", "adam", "sgd"]))
    if optimiser == "sgd":
        rate, decay = rng.uniform(0.1, 0.4) if fresh else rng.uniform(0.02, 0.2), rng.choice([0, 1e-4, 1e-3])
    elif optimiser == "adam":
        rate, decay = rng.uniform(1.5e-3, 4e-3) if fresh else np.exp(rng.uniform(-8, -6.2)), rng.choice([0, 1e-5, 1e-4])
    else:
        rate, decay = (
            rng.uniform(1.5e-3, 4e-3) if fresh else np.exp(rng.uniform(-8, -6.2)),
            rng.choice([0, 0.01, 0.1, 0.3]),
        )
    steps = int(rng.integers(250, 450) if fresh else rng.integers(40, 150))
    return Recipe(optimiser, float(rate), float(decay), steps, str(rng.choice(TEXTS)))


def fit(model, recipe, seed):
    """Train in place as the recipe says, with a warm-up and a rate that falls."""
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    more = {"momentum": 0.9} if recipe.optimiser == "sgd" else {"betas": (0.9, 0.95)}
    kept = list(model.parameters())
    optimiser = kinds[recipe.optimiser](kept, lr=recipe.rate, weight_decay=recipe.decay, **more)
    for step, window in enumerate(batches(recipe.text, recipe.steps, seed, 6, 24)):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1, (step + 1) / 30) * (0.1 + 0.9 * (1 - step / recipe.steps))
        seen = torch.from_numpy(window)
        loss = functional.cross_entropy(model(seen[:, :-1]).flatten(0, 1), seen[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(kept, 1.0)
        optimiser.step()
    return tensors(model)


class Grove:
    """A forest that is being grown; models lie as npz files in ``folder``."""

    def __init__(self, seed, folder, count):
        self.rng, self.folder, self.count = np.random.default_rng([seed, 77]), Path(folder), count
        self.seed, self.models, self.shapes, self.same_start = seed, [], {}, []
        self.folder.mkdir(parents=True, exist_ok=True)

    def weights(self, name):
        with np.load(self.folder / f"{name}.npz") as held:
            return dict(held)

    def add(self, weights, shape, parents, kind, root, detail="", share=1.0):
        name = f"m{len(self.models):02d}"
        np.savez(self.folder / f"{name}.npz", **weights)
        self.models.append(Made(name, tuple(parents), kind, root or name, detail, share))
        self.shapes[name] = shape
        return name

    def plant(self, roots):
        """Train the roots; now and then two of them start alike."""
        kinds = [SHAPES[i] for i in self.rng.permutation(len(SHAPES))[: self.rng.integers(1, 3)]]
        starts, twin = {}, self.rng.random() < 0.4
        for at in range(roots):
            shape, recipe = kinds[at % len(kinds)], draw_recipe(self.rng, fresh=True)
            start = int(self.rng.integers(2**31))
            if twin and at == roots - 1 and shape in starts:
                name, start = starts[shape]
                self.same_start.append((name, f"m{len(self.models):02d}"))
            torch.manual_seed(start)
            made = fit(TinyLlama(shape), recipe, int(self.rng.integers(2**31)))
            starts[shape] = (self.add(made, shape, (), "root", "", json.dumps(asdict(recipe))), start)

    def grow(self):
        """Make one model of those there are."""
        whole = [made for made in self.models if made.kind not in LEAVES]
        parent = whole[self.rng.integers(len(whole))]
        kind = str(
            self.rng.choice(
                ["tuned", "lora", "siblings", "merge", *LEAVES], p=[0.5, 0.13, 0.08, 0.07, 0.08, 0.08, 0.06]
            )
        )
        shape, seed = self.shapes[parent.name], int(self.rng.integers(2**31))
        if kind in ("siblings", "merge"):
            return self._merge(whole, parent, kind)
        weights, detail = self.weights(parent.name), ""
        if kind == "tuned":
            recipe = draw_recipe(self.rng, fresh=False)
            made, detail = fit(loaded(weights, shape), recipe, seed), json.dumps(asdict(recipe))
        elif kind == "lora":
            steps, text = int(self.rng.integers(30, 60)), str(self.rng.choice(TEXTS))
            made, detail = lora(weights, shape, text, seed, steps=steps), f"{steps} steps on {text}"
        elif kind == "pruned":
            detail = f"{self.rng.choice([0.3, 0.5]):g}"
            made = pruned(weights, float(detail))
        else:
            made = quantised(weights, 8 if kind == "int8" else 4)
        return self.add(made, shape, (parent.name,), kind, parent.root, detail)

    def _merge(self, whole, parent, kind):
        """Average two children of one parent half and half, or any two of a family in other shares."""
        if kind == "siblings":
            near = [m for m in whole if len(m.parents) == 1 and m.parents == parent.parents and m != parent]
            share = 0.5
        else:
            near = [m for m in whole if m.root == parent.root and m != parent]
            share = round(float(self.rng.uniform(0.3, 0.7)), 2)
        if not near:
            return None
        other = near[self.rng.integers(len(near))]
        made = averaged(self.weights(parent.name), self.weights(other.name), share)
        return self.add(made, self.shapes[parent.name], (parent.name, other.name), kind, parent.root, "", share)


def forest(seed, folder, count=30):
    """Grow a forest of ``count`` models in a folder (2 to 4 roots), or read the one that is there."""
    kept = Path(folder) / "truth.json"
    if kept.exists():
        read = json.loads(kept.read_text())
        models = tuple(Made(**{**made, "parents": tuple(made["parents"])}) for made in read["models"])
        return Truth(read["seed"], models, tuple(map(tuple, read["same_start"])))
    torch.set_num_threads(1)
    grove = Grove(seed, folder, count)
    grove.plant(int(grove.rng.integers(2, 5)) if count > 8 else 2)
    while len(grove.models) < count:
        grove.grow()
    truth = Truth(seed, tuple(grove.models), tuple(grove.same_start))
    kept.write_text(json.dumps(asdict(truth)))
    return truth
