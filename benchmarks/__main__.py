"""``python -m benchmarks``: error rates, speed and start-up, printed as tables and written as JSON."""

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> None:
    """Run all benchmarks for several seeds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument(
        "--first-seed", type=int, default=20, help="0 to 3 were used to choose parameters, 10 to 12 to improve them"
    )
    parser.add_argument("--dir", type=Path, default=Path("minutia-bench"), help="where models are kept")
    parser.add_argument("--write", type=Path, help="write the tables as a page of documentation")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    found = [measure(options.dir / f"seed-{seed}", seed) for seed in seeds]
    report = {"date": datetime.now(UTC).date().isoformat(), "seeds": list(seeds), "start": start_up(), "runs": found}
    from benchmarks.page import page

    text = page(report)
    print(text)
    (options.dir / "bench.json").write_text(json.dumps(report, indent=1))
    if options.write:
        options.write.write_text(text + "\n")


def measure(root: Path, seed: int) -> dict[str, Any]:
    """Everything on one seed's models."""
    from benchmarks import error_rates, ipguard_speed
    from minutia import catalog

    started = perf_counter()
    lab = error_rates.laboratory(root, catalog.method("ipguard"), seed)
    model, inputs = error_rates.owner(root, seed)
    found = {
        "seed": seed,
        "fingerprint": lab.fp.digest,
        "type_one": error_rates.type_one(lab, seed),
        "speed": ipguard_speed.compare(model, inputs, seed),
    }
    print(f"seed {seed}: {perf_counter() - started:.0f} s", file=sys.stderr)
    return found


def start_up(runs: int = 9) -> dict[str, float]:
    """Median seconds of ``minutia --help`` and of an empty Python, in turn."""
    commands = {"help": [sys.executable, "-m", "minutia", "--help"], "python": [sys.executable, "-c", "pass"]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            started = perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(perf_counter() - started)
    return {name: float(np.median(seconds)) for name, seconds in times.items()}


if __name__ == "__main__":
    main()
