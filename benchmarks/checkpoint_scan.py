"""``python -m benchmarks.checkpoint_scan``: all numbers of a checkpoint once, against ``sha256sum`` of the file."""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

ROWS, WIDTH = 4096, 4096
SAFE = {"bfloat16": ("BF16", 2), "float16": ("F16", 2), "float8_e4m3fn": ("F8_E4M3", 1), "float32": ("F32", 4)}
GGUF = {"q8_0": (8, 34 * WIDTH // 32), "q4_k": (12, 144 * WIDTH // 256), "q6_k": (14, 210 * WIDTH // 256)}


def main() -> None:
    """Write the files, measure each in turn, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint_scan", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of each file")
    parser.add_argument("--formats", nargs="*", default=[*SAFE, *GGUF], choices=[*SAFE, *GGUF])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where the files are written; default: the system's temporary folder")
    parser.add_argument("--scan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.scan:
        print(json.dumps(scan(options.scan)))
        return
    if options.write:
        write(options.write, options.formats[0], options.mib)
        return
    found = []
    print("format         MiB   sha256sum  reading  scan (MB/s)  scan/sha256sum  peak MiB")
    for name in options.formats:
        with tempfile.TemporaryDirectory(dir=options.dir) as folder:
            path = Path(folder) / ("m.gguf" if name in GGUF else "m.safetensors")
            # In a process of its own: a child's peak begins at what its parent holds.
            child("--write", str(path), "--formats", name, "--mib", str(options.mib))
            found.append({"format": name, **compare(path, options.rounds)})
        row = found[-1]
        print(
            f"{name:13} {row['mb'] / 1.048576:5.0f} {row['sha256sum']:11.0f} {row['read']:8.0f} {row['scan']:12.0f} "
            f"{row['ratio']:15.2f} {row['peak_mib']:9.0f}"
        )
    print(json.dumps(found))


def compare(path: Path, rounds: int) -> dict[str, float]:
    """Rates in MB/s, the median of several rounds in turn on the warm file, and the largest peak of the scan."""
    size = path.stat().st_size / 1e6
    rates: dict[str, list[float]] = {"sha256sum": [], "read": [], "scan": []}
    peaks = []
    for _ in range(rounds):
        rates["read"].append(size / read(path))
        started = perf_counter()
        subprocess.run(["sha256sum", str(path)], check=True, stdout=subprocess.DEVNULL)
        rates["sha256sum"].append(size / (perf_counter() - started))
        scanned = json.loads(child("--scan", str(path)))
        rates["scan"].append(size / scanned["seconds"])
        peaks.append(scanned["peak_mib"])
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    ratio = medians["scan"] / min(medians["sha256sum"], medians["read"])
    return {"mb": size, **medians, "ratio": ratio, "peak_mib": max(peaks)}


def child(*arguments: str) -> str:
    """What another process of this module prints."""
    command = [sys.executable, "-m", "benchmarks.checkpoint_scan", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def read(path: Path) -> float:
    """Seconds that plain reading takes."""
    buffer = bytearray(2**20)
    started = perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return perf_counter() - started


def scan(path: Path) -> dict[str, float]:
    """Sum and sum of squares of every tensor; opening the file is part of it, starting Python is not."""
    import resource

    from minutia.models.checkpoint import open_checkpoint

    started = perf_counter()
    with open_checkpoint(str(path)) as checkpoint:
        for name in checkpoint.names:
            total = squares = 0.0
            for block in checkpoint.blocks(name):
                flat = block.reshape(-1)
                total += float(flat.sum())
                squares += float(flat @ flat)
            if not np.isfinite([total, squares]).all():
                raise SystemExit(f"{name}: {total}, {squares}")
    seconds = perf_counter() - started
    return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def write(path: Path, name: str, mib: int) -> None:
    """A file of random numbers in matrices of 4096 by 4096."""
    row_bytes = GGUF[name][1] if name in GGUF else SAFE[name][1] * WIDTH
    count = max(mib * 2**20 // (ROWS * row_bytes), 1)
    if shutil.disk_usage(path.parent).free < 2 * mib * 2**20:
        raise SystemExit(f"expected {2 * mib} MiB of free space in {path.parent}: choose another --dir")
    matrix = raw(name, row_bytes)
    with path.open("wb") as file:
        file.write(gguf_header(name, count) if name in GGUF else safetensors_header(name, count))
        for _ in range(count):
            file.write(matrix)


def raw(name: str, row_bytes: int) -> bytes:
    """One matrix as it is stored."""
    import ml_dtypes

    rng = np.random.default_rng(0)
    if name in SAFE:
        kind = np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)
        return (rng.standard_normal((ROWS, WIDTH), np.float32) / 64).astype(kind).tobytes()
    block = {"q8_0": 34, "q4_k": 144, "q6_k": 210}[name]
    blocks = rng.integers(0, 256, (ROWS * row_bytes // block, block), np.uint8)
    for at in {"q8_0": (0,), "q4_k": (0, 2), "q6_k": (208,)}[name]:
        blocks[:, at : at + 2] = np.array([1e-3], "<f2").view(np.uint8)
    return blocks.tobytes()


def safetensors_header(name: str, count: int) -> bytes:
    kind, size = SAFE[name]
    step = ROWS * WIDTH * size
    said = {
        f"layers.{i}.weight": {"dtype": kind, "shape": [ROWS, WIDTH], "data_offsets": [i * step, (i + 1) * step]}
        for i in range(count)
    }
    text = json.dumps(said).encode()
    return struct.pack("<Q", len(text)) + text


def gguf_header(name: str, count: int) -> bytes:
    kind, row_bytes = GGUF[name]
    head = b"GGUF" + struct.pack("<IQQ", 3, count, 0)
    for i in range(count):
        word = f"blk.{i}.weight".encode()
        head += struct.pack("<Q", len(word)) + word + struct.pack("<IQQIQ", 2, WIDTH, ROWS, kind, i * ROWS * row_bytes)
    return head + bytes(-len(head) % 32)


if __name__ == "__main__":
    main()
