"""The measurements as one page of Markdown: figures with intervals, seeds and date."""

from collections.abc import Iterator, Sequence
from typing import Any


def page(report: dict[str, Any]) -> str:
    """All tables."""
    runs = report["runs"]
    parts = [
        "# Error rates and speed",
        f"Measured {report['date']}, seeds {', '.join(map(str, report['seeds']))} (parameters were chosen on seeds "
        "0 to 3, and improved on 10 to 12; 20 to 22 were measured twice, "
        "no choice followed from them), scikit-learn's digits, one thread per process. "
        "Every seed has its own owner, 99 calibrators, "
        "20 spent models and fresh innocents.",
        "## False alarms",
        *_type_one(runs),
        "## Speed",
        *_speed(runs, report["start"]),
    ]
    return "\n\n".join(parts)


def _type_one(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield (
        "Fresh innocents trained like the owner's model, that took part in nothing else. The bound is the 97.5 % point "
        "of the beta-binomial distribution of false alarms with one null set. *Rejections* have p <= alpha; *matches* "
        "are verdicts, which ask more. The last columns are mean rates over redrawn null sets (200 for matches, 20,000 "
        "for rejections): calibrators drawn anew from all 399 innocents, the others judged."
    )
    rows = [
        [
            run["seed"],
            alpha,
            run["type_one"]["innocents"],
            (one := run["type_one"][alpha])["matches_early"],
            one["matches_all"],
            one["rejections_early"],
            one["rejections_last_look"],
            one["bound"],
            f"{one['redrawn_matches']:.4f}",
            f"{one['redrawn_path']:.4f}",
            f"{one['redrawn_last_look']:.4f}",
        ]
        for run in runs
        for alpha in ("0.01", "0.05")
    ]
    yield _table(
        "seed,alpha,innocents,matches (early),matches (ask all),rejections (path),rejections (one look),bound,"
        "redrawn matches,redrawn rejections (path),redrawn rejections (one look)",
        rows,
    )


def _speed(runs: Sequence[dict[str, Any]], start: dict[str, float]) -> Iterator[str]:
    yield (
        "IPGuard points in one streaming batch against a loop over single images (one optimiser each, plain autograd) "
        "with the same loss, starts, targets, step size and stopping rule, in one thread, CPU seconds, median of "
        "repeats taken in turn. *All candidates* is what one extraction of 100 probes optimises."
    )
    rows = [
        [
            run["seed"],
            what,
            one["points"],
            f"{one['loop_s']:.2f}",
            f"{one['batched_s']:.3f}",
            f"{one['ratio']:.1f}",
        ]
        for run in runs
        for what, one in run["speed"].items()
    ]
    yield _table("seed,work,points,loop s,batch s,ratio", rows)
    yield (
        f"`minutia --help` takes {start['help']:.3f} s, {start['help'] / start['python']:.1f} times an empty Python "
        f"({start['python']:.3f} s)."
    )


def _table(header: str, rows: Sequence[Sequence[object]]) -> str:
    names = header.split(",")
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
