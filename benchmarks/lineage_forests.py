"""How often lineage is right on random forests of 30 tiny language models whose parents are known.

``python -m benchmarks.lineage_forests --forests 10 --seed 100`` trains them (20 seconds of one core each) or, with
``--dir``, keeps them there and reads them again.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from tests.forest_lab import Truth, forest

from minutia.core.tensors import Arrays
from minutia.methods.weights.forest import Forest, lineage
from minutia.stats.intervals import clopper_pearson


def counted(truth: Truth, found: Forest) -> Counter[str]:
    """Count edges of a found forest by what is true of them."""
    root = {made.name: made.root for made in truth.models}
    either = truth.edges | {(child, parent) for parent, child in truth.edges}
    given = [edge for edge in found.edges if edge.supported]
    right = [edge for edge in given if (edge.parent, edge.child) in either]
    return Counter(
        true=len(truth.edges),
        all=len(found.edges),
        given=len(given),
        right=len(right),
        directed=sum((edge.parent, edge.child) in truth.edges for edge in right),
        unsupported=len(found.edges) - len(given),
        guessed=sum((edge.parent, edge.child) in truth.edges for edge in found.edges),
        between=sum(root[edge.parent] != root[edge.child] for edge in found.edges),
        merges=sum(len(made.parents) == 2 for made in truth.models),
        merged=sum(
            {p for p, c in truth.edges if c == made.name} == _averaged(found, made.name)
            for made in truth.models
            if len(made.parents) == 2
        ),
    )


def _averaged(found: Forest, name: str) -> set[str]:
    return {edge.parent for edge in found.edges if edge.child == name and edge.kind == "average"}


def _rate(hits: int, of: int) -> str:
    low, high = clopper_pearson(hits, of)
    return f"{hits}/{of} = {hits / max(of, 1):.3f} [{low:.3f}, {high:.3f}]"


def report(sums: Counter[str]) -> str:
    """The figures in words."""
    return "; ".join(
        (
            f"edges given that are right {_rate(sums['right'], sums['given'])}",
            f"their direction right {_rate(sums['directed'], sums['right'])}",
            f"unsupported {_rate(sums['unsupported'], sums['all'])}",
            f"true edges among all, with direction {_rate(sums['guessed'], sums['true'])}",
            f"links between families {sums['between']}",
            f"merges with both parents {sums['merged']}/{sums['merges']}",
        )
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forests", type=int, default=10)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--dir", type=Path)
    given = parser.parse_args()
    pooled: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as own:
        for seed in range(given.seed, given.seed + given.forests):
            folder = (given.dir or Path(own)) / str(seed)
            truth = forest(seed, folder)
            models = {made.name: Arrays(dict(np.load(folder / f"{made.name}.npz"))) for made in truth.models}
            start = time.process_time()
            sums = counted(truth, lineage(models, seed=seed))
            print(f"forest {seed}: {report(sums)}; {time.process_time() - start:.1f} s", flush=True)
            pooled += sums
    print(f"pooled over {given.forests} forests: {report(pooled)}")


if __name__ == "__main__":
    main()
