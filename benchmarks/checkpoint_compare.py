"""``python -m benchmarks.checkpoint_compare``: two checkpoints compared, against ``sha256sum`` of both files."""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.range_server import serving

Tensors = dict[str, np.ndarray[Any, Any]]
WIDTH, UNITS, HEAD_WIDTH, KEYS, TOKENS = 2048, 5632, 64, 4, 32000
COMMON = 64
CASES = ("tuned", "laundered", "independent")
EDGES = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")


def main() -> None:
    """Write the files, measure each case in turn, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint_compare", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of each file")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where the files are written; default: the system's temporary folder")
    parser.add_argument("--compare", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compare:
        print(json.dumps(compared(*options.compare)))
        return
    if options.write:
        write(options.write, options.cases, options.mib)
        return
    found = []
    print("case         place   sha256sum s  compare s  ratio  peak MiB  bytes read  relation  (p, null)")
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        # In a process of its own: a child's peak begins at what its parent holds.
        child("--write", folder, "--mib", str(options.mib), "--cases", *options.cases)
        for case in options.cases:
            found += [{"case": case, **row} for row in measured(Path(folder), case, options.rounds)]
            for row in found[-2:]:
                print(
                    f"{row['case']:12} {row['place']:6} {row['sha256sum']:13.2f} {row['seconds']:10.2f} "
                    f"{row['ratio']:6.2f} {row['peak_mib']:9.0f} {row['share_read']:10.2%}  {row['relation']}  "
                    f"({row['p_value']:.2g}, {row['null']}: {row['test']})",
                    flush=True,
                )
    print(json.dumps(found))


def measured(folder: Path, case: str, rounds: int) -> list[dict[str, Any]]:
    """Medians of several rounds in turn on warm files, and of one that reads them from a server of byte ranges."""
    paths = [folder / "first.safetensors", folder / f"{case}.safetensors"]
    hashing, local = [], []
    for _ in range(rounds):
        started = perf_counter()
        subprocess.run(["sha256sum", *map(str, paths)], check=True, stdout=subprocess.DEVNULL)
        hashing.append(perf_counter() - started)
        local.append(json.loads(child("--compare", *map(str, paths))))
    with serving(folder) as address:
        remote = json.loads(child("--compare", *(f"{address}/{path.name}" for path in paths)))
    size, sha256sum = sum(path.stat().st_size for path in paths), float(np.median(hashing))
    rows = []
    for place, runs in (("local", local), ("remote", [remote])):
        seconds = float(np.median([run["seconds"] for run in runs]))
        worst = {**runs[0], "peak_mib": max(run["peak_mib"] for run in runs), "seconds": seconds}
        share = worst["bytes_read"] / size
        rows.append(
            {"place": place, **worst, "sha256sum": sha256sum, "ratio": seconds / sha256sum, "share_read": share}
        )
    return rows


def child(*arguments: str) -> str:
    """What another process of this module prints."""
    command = [sys.executable, "-m", "benchmarks.checkpoint_compare", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def compared(first: str, second: str) -> dict[str, Any]:
    """The verdict on two checkpoints and what it took; opening them is part of it, starting Python is not."""
    import resource

    from minutia.methods.weights.comparison import compare
    from minutia.models.checkpoint import open_checkpoint

    started = perf_counter()
    with open_checkpoint(first) as one, open_checkpoint(second) as other:
        found = compare(one, other)
        read = one.bytes_read + other.bytes_read
    return {
        "seconds": perf_counter() - started,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bytes_read": read,
        **{name: getattr(found, name) for name in ("relation", "p_value", "null", "test", "tests", "notes")},
    }


def write(folder: Path, cases: list[str], mib: int) -> None:
    """Random weights of a Llama-type model with grouped queries, and what the cases make of them."""
    per_layer = WIDTH * (3 * UNITS + 2 * WIDTH + 2 * KEYS * HEAD_WIDTH)
    count = max(round((mib * 2**19 - 2 * TOKENS * WIDTH) / per_layer), 2)
    if shutil.disk_usage(folder).free < (len(cases) + 2) * mib * 2**20:
        raise SystemExit(f"expected {(len(cases) + 2) * mib} MiB of free space in {folder}: choose another --dir")
    store(folder / "first.safetensors", model(count, 0))
    if "tuned" in cases:
        store(folder / "tuned.safetensors", map(tuned, model(count, 0)))
    if "laundered" in cases:
        store(folder / "laundered.safetensors", laundered(model(count, 0)))
    if "independent" in cases:
        store(folder / "independent.safetensors", model(count, 1))


def model(count: int, seed: int) -> Iterator[Tensors]:
    """Embedding, norm and head, then layer by layer; up leans on the gate of its unit, as training makes it do."""
    rng = np.random.default_rng(seed)

    def matrix(outputs: int, inputs: int) -> np.ndarray[Any, Any]:
        found = rng.standard_normal((outputs, inputs), np.float32)
        found *= np.float32(inputs**-0.5)
        return found

    def norm() -> np.ndarray[Any, Any]:
        return rng.uniform(0.5, 2, WIDTH).astype(np.float32)

    words = np.random.default_rng(99).standard_normal((TOKENS, COMMON), np.float32)  # what all models know of words
    tables = [matrix(TOKENS, WIDTH) + words @ matrix(COMMON, WIDTH) for _ in range(2)]
    yield dict(zip(EDGES, (tables[0], norm(), tables[1]), strict=True))
    del words, tables
    for at in range(count):
        gate = matrix(UNITS, WIDTH)
        layer = {
            "input_layernorm": norm(),
            "post_attention_layernorm": norm(),
            "self_attn.q_proj": matrix(WIDTH, WIDTH),
            "self_attn.k_proj": matrix(KEYS * HEAD_WIDTH, WIDTH),
            "self_attn.v_proj": matrix(KEYS * HEAD_WIDTH, WIDTH),
            "self_attn.o_proj": matrix(WIDTH, WIDTH),
            "mlp.gate_proj": gate,
            "mlp.up_proj": matrix(UNITS, WIDTH) + 0.3 * gate,
            "mlp.down_proj": matrix(WIDTH, UNITS),
        }
        yield {f"model.layers.{at}.{name}.weight": value for name, value in layer.items()}


def tuned(part: Tensors) -> Tensors:
    """The same with noise of a tenth of its deviation in every matrix."""
    rng = np.random.default_rng(7)
    for value in part.values():
        if value.ndim > 1:
            value += 0.1 * value.std() * rng.standard_normal(value.shape, np.float32)
    return part


def laundered(parts: Iterator[Tensors]) -> Iterator[Tensors]:
    """The same with its stream turned, norms folded in, hidden units in another order and up and down rescaled."""
    from minutia.attacks import launder_transformer as lt

    rng = np.random.default_rng(8)
    turn = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH), np.float32))[0]
    one = np.zeros((1, WIDTH), np.float32)
    for part in parts:
        place = next((name.split(".")[2] for name in part if "layers" in name), "")
        inside = {name.replace(f"layers.{place}.", "layers.0.") if place else name: w for name, w in part.items()}
        if place:
            changed = lt.turn_stream({EDGES[0]: one, **inside}, turn)
            changed = lt.rescale_units(lt.permute_units(changed, rng), rng)
            yield {name: changed[name.replace(f"layers.{place}.", "layers.0.")] for name in part}
        else:
            embedding, norm, head = (part[name] for name in EDGES)
            yield dict(zip(EDGES, (embedding @ turn, np.ones_like(norm), (head * norm) @ turn), strict=True))


def store(path: Path, parts: Iterator[Tensors]) -> None:
    """A safetensors file of bfloat16, written part by part; its header comes last and is as long as was left for it."""
    import ml_dtypes

    said: dict[str, Mapping[str, Any]] = {}
    room, at = 2**16, 0
    with path.open("wb") as file:
        file.seek(8 + room)
        for part in parts:
            for name, value in part.items():
                data = value.astype(ml_dtypes.bfloat16)
                said[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": [at, at + data.nbytes]}
                at += data.nbytes
                file.write(data.tobytes())
        file.seek(0)
        file.write(struct.pack("<Q", room) + json.dumps(said).encode().ljust(room))


if __name__ == "__main__":
    main()
