"""``python -m benchmarks.checkpoint_laboratory``: ``compare`` on tiny language models of known descent."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tests.lineage_lab import Shape, lora, trained, tuned

from benchmarks.checkpoint_page import page
from minutia.attacks import launder_transformer as lt
from minutia.core.tensors import Arrays
from minutia.methods.weights import laundered, order, streams
from minutia.methods.weights.comparison import Comparison, compare
from minutia.methods.weights.order import unit_order
from minutia.methods.weights.streams import Stream

STEPS = 800
FAMILIES = {
    "llama": (Shape(), "shakespeare"),
    "deeper": (Shape(layers=5), "moby"),
    "wider": (Shape(width=64, units=160, layers=3), "testament"),
    "narrow": (Shape(width=32, units=88), "quijote"),
    "plain": (Shape(gated=False, units=160), "shakespeare"),
    "longer": (Shape(units=144), "a made-up language"),
    "experts": (Shape(layers=3, units=48, experts=3), "moby"),
}
"""Shape and text; ``plain`` has no gates, ``experts`` a router."""
SAME_ORDER = 2
"""Models of each family that see the data in one order."""
ORDERS = 50
"""Random orders of units and stream per pair, for the exact test's rate of false alarms."""
FAST = ("same", "int4", "tuned", "tuned_far", "lora", "merge", "pruned", "merge_stranger")
"""Copies whose vocabulary is re-ordered as well."""

Weights = dict[str, np.ndarray]
Found = dict[str, Any]


class Laboratory:
    """Models by name, trained when they are first asked for and kept in a folder."""

    def __init__(self, folder: Path, seed: int, count: int) -> None:
        self.folder, self.seed, self.count = folder, seed, count
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, make: Callable[[], Weights]) -> Weights:
        """Read a model, or make and keep it."""
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            started = perf_counter()
            with (self.folder / f"{name}.part").open("wb") as file:
                np.savez(file, **make())
            (self.folder / f"{name}.part").rename(path)
            print(f"{name}: {perf_counter() - started:.0f} s", file=sys.stderr)
        with np.load(path) as found:
            return dict(found)

    def base(self, family: str, number: int) -> Weights:
        """A model of its own seed; the first SAME_ORDER of a family share the order of their data."""
        shape, text = FAMILIES[family]
        own = self.seed * 1000 + 100 * list(FAMILIES).index(family) + number
        order = self.seed * 1000 + 99 if number < SAME_ORDER else None
        return self.get(f"{family}{number}", lambda: trained(shape, text, own, STEPS, order=order))

    def distilled(self, family: str) -> Weights:
        """A student of the family's first model, from an initialisation of its own."""
        shape, text = FAMILIES[family]
        own = self.seed * 1000 + 100 * list(FAMILIES).index(family) + 50
        teacher = self.base(family, 0)
        return self.get(f"{family}_distilled", lambda: trained(shape, text, own, STEPS, teacher=teacher))

    def same_start(self, family: str) -> Weights:
        """Another text from the initialisation of the family's first model."""
        shape, _ = FAMILIES[family]
        own = self.seed * 1000 + 100 * list(FAMILIES).index(family)
        return self.get(f"{family}_start", lambda: trained(shape, self.other(family), own, STEPS))

    def second_child(self, family: str) -> Weights:
        """Another copy that was tuned far, on a text of its own."""
        shape, one = FAMILIES[family][0], self.base(family, 0)
        return self.get(f"{family}_child", lambda: tuned(one, shape, "testament", 4, steps=STEPS, rate=2e-3))

    def other(self, family: str) -> str:
        """A text that the family did not see."""
        return "quijote" if FAMILIES[family][1] == "moby" else "moby"

    def changed(self, family: str) -> dict[str, Weights]:
        """Copies of the family's first model whose units keep their order."""
        shape, text = FAMILIES[family]
        one, stranger, far = self.base(family, 0), self.base(family, 2), self.other(family)
        found = {
            "same": one,
            "bfloat16": lt.rounded(one),
            "int8": lt.quantised(one, 8),
            "int4": lt.quantised(one, 4),
            "pruned": lt.pruned(one, 0.5),
            "tuned": self.get(f"{family}_tuned", lambda: tuned(one, shape, text, 1, steps=200)),
            "tuned_far": self.get(f"{family}_far", lambda: tuned(one, shape, far, 2, steps=STEPS, rate=2e-3)),
            "lora": self.get(f"{family}_lora", lambda: lora(one, shape, far, 3)),
            "merge_stranger": lt.averaged(one, stranger),
            "merge_stranger_30": lt.averaged(one, stranger, 0.3),
        }
        count = lt.layers(one)
        found["merge"] = lt.averaged(one, found["tuned_far"])
        found["layer_dropped"] = lt.take_layers(one, [0, *range(2, count)])
        found["layer_doubled"] = lt.take_layers(one, [0, 1, 1, *range(2, count)])
        return found

    def laundered(self, family: str) -> Iterator[tuple[str, str, Weights, np.ndarray | None]]:
        """The copies again, disguised: what was done before, how, the weights, and the order of tokens where known."""
        heads, one = FAMILIES[family][0].attention, self.base(family, 0)
        rng = np.random.default_rng(self.seed)
        for kind, weights in self.changed(family).items():
            turned = lt.launder(weights, heads, rng)
            yield kind, "permuted", lt.launder(weights, heads, rng, rotate=False), None
            yield kind, "rotated", turned, None
            if kind in FAST:
                order = rng.permutation(len(weights[lt.HEAD]))
                renamed = lt.reorder_vocabulary(turned, order)
                yield kind, "rotated, vocabulary re-ordered", renamed, None
                yield kind, "rotated, vocabulary re-ordered, strings known", renamed, order
        turned = lt.launder(one, heads, rng)
        yield "same", "rotated, then int4", lt.quantised(turned, 4), None
        yield "same", "rotated, then pruned", lt.pruned(turned, 0.5), None
        yield "same", "units permuted and rescaled", lt.rescale_units(lt.permute_units(one, rng), rng), None
        yield "same", "norms folded", lt.fold_norms(one), None
        yield "same", "stream permuted, signs flipped", lt.permute_stream(one, rng), None
        yield "same", "heads permuted", lt.permute_heads(one, heads, rng), None
        yield "same", "queries and keys rescaled", lt.rescale_queries(one, heads, rng), None

    def strangers(self) -> Iterator[tuple[str, Weights, Weights]]:
        """Independent pairs: of one recipe, of one data order, of other shapes and texts, distilled, and siblings."""
        rng = np.random.default_rng(self.seed)
        twins = [(f, i, j) for f in FAMILIES for i, j in combinations(range(self.count), 2)]
        for family, i, j in twins:
            kind = "same recipe and data order" if j < SAME_ORDER else "same recipe"
            yield kind, self.base(family, i), self.base(family, j)
        others = [
            (f, i, g, j)
            for f, g in combinations(FAMILIES, 2)
            if FAMILIES[f][0].gated == FAMILIES[g][0].gated
            for i in range(self.count)
            for j in range(self.count)
        ]
        for place in sorted(rng.permutation(len(others))[: len(twins)]):
            f, i, g, j = others[place]
            yield "another shape or text", self.base(f, i), self.base(g, j)
        for family in FAMILIES:
            yield "distilled", self.base(family, 0), self.distilled(family)
            tuned_far, turned = self.changed(family)["tuned_far"], FAMILIES[family][0].attention
            for i in range(1, self.count):
                copy = lt.launder(tuned_far, turned, np.random.default_rng(i))
                yield "a disguised copy against a twin of its parent", copy, self.base(family, i)


def main() -> None:
    """Train what is missing, compare every pair, print tables and a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint_laboratory", description=__doc__)
    parser.add_argument("--seed", type=int, default=71, help="seeds up to 70 were used to build the rules")
    parser.add_argument("--count", type=int, default=6, help="models per family")
    parser.add_argument("--dir", type=Path, default=Path("minutia-bench/checkpoints"), help="where models are kept")
    parser.add_argument("--sketched", action="store_true", help="treat every layer as the large ones of real models")
    parser.add_argument("--json", type=Path, help="write what was found here as well")
    parser.add_argument("--write", type=Path, help="write the tables as a page of documentation")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.sketched:
        streams.LARGE, laundered.SKETCH, order.SKETCH = 0, 24, 24
    laboratory = Laboratory(options.dir / f"seed-{options.seed}", options.seed, options.count)
    found: Found = {
        "seed": options.seed,
        "steps": STEPS,
        "strangers": strangers(laboratory),
        "copies": copies(laboratory),
    }
    found |= {"start": started_alike(laboratory), "exact": redrawn(laboratory)}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    text = page(found)
    print(text)
    if options.write:
        options.write.write_text(text + "\n")


def row(found: Comparison) -> dict[str, Any]:
    """What is kept of a comparison."""
    tests = dict(found.tests)
    return {
        "relation": found.relation,
        "p": found.p_value,
        "order_p": tests.get("unit order"),
        "null": found.null,
        "test": found.test,
        "merged": found.merged,
        "weak": dict(found.baselines),
    }


def strangers(laboratory: Laboratory) -> list[dict[str, object]]:
    """Every independent pair."""
    return [
        {"kind": kind, **row(compare(Arrays(a), Arrays(b), seed=at, weak=True))}
        for at, (kind, a, b) in enumerate(laboratory.strangers())
    ]


def copies(laboratory: Laboratory) -> list[dict[str, object]]:
    """Every copy of every family's first model, as it is and disguised."""
    found = []
    for family in FAMILIES:
        one = Arrays(laboratory.base(family, 0))
        plain = ((kind, "", weights, None) for kind, weights in laboratory.changed(family).items())
        for kind, disguise, weights, moved in [*plain, *laboratory.laundered(family)]:
            words = None if moved is None else tuple([f"token {at}" for at in side] for side in (sorted(moved), moved))
            told = row(compare(one, Arrays(weights), tokens=words, weak=True))
            found.append({"family": family, "kind": kind, "disguise": disguise, **told})
    return found


def started_alike(laboratory: Laboratory) -> list[dict[str, object]]:
    """Two trainings from one initialisation, and two children of one parent."""
    found = []
    for family in FAMILIES:
        one, changed = laboratory.base(family, 0), laboratory.changed(family)
        pairs = {
            "one initialisation, two texts": (one, laboratory.same_start(family)),
            "two children, both tuned far": (changed["tuned_far"], laboratory.second_child(family)),
            "two children, one hardly tuned": (changed["tuned"], changed["tuned_far"]),
        }
        found += [{"kind": kind, "family": family, **row(compare(*map(Arrays, pair)))} for kind, pair in pairs.items()]
    return found


def redrawn(laboratory: Laboratory) -> list[float]:
    """P-values of the exact test where its null hypothesis was made true: units and stream in random order."""
    found = []
    for family in FAMILIES:
        for i in range(1, 4):
            one = Stream.of(Arrays(laboratory.base(family, 0)), "one")
            two = laboratory.base(family, i)
            for draw in range(ORDERS):
                rng = np.random.default_rng([laboratory.seed, i, draw])
                other = lt.permute_units(lt.permute_stream(two, rng), rng)
                found.append(unit_order(one, Stream.of(Arrays(other), "two"), rng).p)
    return found


if __name__ == "__main__":
    main()
