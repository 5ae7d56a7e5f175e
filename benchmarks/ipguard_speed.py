"""IPGuard crafting in one batch against the loop over single images, same loss, same stopping rule, same threads."""

from collections.abc import Callable
from time import process_time
from typing import Any

import numpy as np

from minutia.core.digest import Array
from minutia.methods.classifiers.ipguard import IPGuard, descend
from minutia.models.torch import TorchModel


def compare(model: TorchModel, inputs: Array, seed: int) -> dict[str, dict[str, Any]]:
    """Both ways on 100 starts, and on all the candidates that one extraction of 100 probes optimises."""
    method = IPGuard()
    return {
        "100 points": race(model, inputs, seed, method.probes, repeats=3),
        "all candidates": race(model, inputs, seed, method.probes * method.oversample, repeats=1),
    }


def race(model: TorchModel, inputs: Array, seed: int, points: int, repeats: int) -> dict[str, Any]:
    """CPU seconds of both ways on the same starts and targets, median over repeats taken in turn, one thread."""
    import torch

    torch.set_num_threads(1)
    method, rng = IPGuard(), np.random.default_rng(seed)
    starts = inputs[rng.choice(len(inputs), points, replace=points > len(inputs))]
    logits, _ = model.linearise(starts)
    first = logits.argmax(axis=1)
    goal = (first + rng.integers(1, logits.shape[1], points)) % logits.shape[1]
    top = np.sort(logits, axis=1)
    gap = float(np.quantile(top[:, -1] - top[:, -2], method.margin))
    parts = (starts, first, goal, gap, method.rate, method.steps)
    times, results = [], []
    for way in (_batched, _one_by_one) * repeats:
        seconds, result = _timed(way, model, *parts)
        times.append(seconds)
        results.append(result)
    batch, loop = np.array(times[::2]), np.array(times[1::2])
    (moved, reached), (single, single_reached) = results[:2]
    return {
        "points": points,
        "batched_s": float(np.median(batch)),
        "loop_s": float(np.median(loop)),
        "ratio": float(np.median(loop / batch)),
        "reached_batched": int(reached.sum()),
        "reached_loop": int(single_reached.sum()),
        "largest_difference": float(np.abs(moved - single)[reached & single_reached].max()),
    }


def _timed(way: Callable[..., Any], *arguments: object) -> tuple[float, Any]:
    started = process_time()
    result = way(*arguments)
    return process_time() - started, result


def _batched(
    model: TorchModel, starts: Array, first: Array, goal: Array, gap: float, rate: float, steps: int
) -> tuple[Array, Array]:
    return descend(model, starts, first, goal, gap, (0.0, 1.0), rate, steps)


def _one_by_one(
    model: TorchModel, starts: Array, first: Array, goal: Array, gap: float, rate: float, steps: int
) -> tuple[Array, Array]:
    """The public way: one image, one optimiser, plain autograd, until its loss is 0."""
    import torch

    moved, reached = [], []
    for start, i, j in zip(starts, first, goal, strict=True):
        x = torch.from_numpy(start[None].copy()).requires_grad_(True)
        adam, done = torch.optim.Adam([x], lr=rate), False
        others = [c for c in range(10) if c not in (int(i), int(j))]
        for _ in range(steps):
            logits = model.module(x)[0]
            loss = torch.relu(logits[i] - logits[j] + gap) + torch.relu(logits[others].max() - logits[i])
            if loss.item() == 0:
                done = True
                break
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                x.clamp_(0.0, 1.0)
        moved.append(x.detach().numpy()[0])
        reached.append(done)
    return np.stack(moved), np.array(reached)
