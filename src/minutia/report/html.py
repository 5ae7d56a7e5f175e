"""One self-contained page: no request leaves it, pictures are drawn in it, foreign text is escaped."""

import platform
import re
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from minutia.core.fingerprint import Fingerprint, Null
from minutia.report import charts, findings, words
from minutia.report.rows import Group, Row, Summary, grouped
from minutia.report.svg import Svg

__all__ = ["Row", "render"]

MOST = 500
"""Suspects that are drawn and listed; a page of more would help nobody."""


def render(
    rows: Sequence[Row],
    fingerprint: Fingerprint,
    null: Null,
    *,
    title: str,
    created: str = "",
    seconds: float | None = None,
    null_paths: tuple[Sequence[int], Any] | None = None,
    owner_score: float | None = None,
    commands: Sequence[str] = (),
) -> str:
    """Return the page as text.

    ``null_paths`` are the looks and the null models' scores (m, looks); without them the null is not drawn.
    ``owner_score`` is the score of the owner's own model, ``created`` a date, ``seconds`` what it all took, and
    ``commands`` the command lines that made it.
    """
    paths = charts.NullPaths(*null_paths) if null_paths and len(null_paths[1]) else None
    groups = grouped(rows[:MOST])
    page = (
        environment()
        .get_template("page.html.j2")
        .render(
            title=words.clean(title, 120),
            about=_about(fingerprint, created, seconds),
            lead=findings.lead(rows, fingerprint, null),
            tiles=findings.tiles(rows, len(fingerprint.probes)),
            figures=_figures(groups, rows[:MOST], fingerprint, paths, owner_score),
            groups=groups,
            left_out=max(0, len(rows) - MOST),
            summary=Summary(rows).sentence(),
            powers=findings.powers(rows, fingerprint),
            reading=findings.reading(rows, null),
            raised=findings.raised(rows),
            all_flags=findings.all_flags(),
            facts=_facts(rows, fingerprint, null),
            commands=[words.clean(line, 400) for line in commands or _commands(rows)],
            outcomes=words.OUTCOMES,
            symbol=charts.symbol,
            interval=charts.interval,
            words=words,
        )
    )
    return str(page)


def environment() -> Any:
    """What all pages share: templates of this room, everything escaped, filters for foreign text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("minutia", "report")
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters["clean"] = words.clean
    found.filters["tied"] = _tied
    return found


def _tied(text: str) -> str:
    """Percent signs stay with their numbers, and apostrophes are set as such."""
    return re.sub(r"(?<=\w)'(?=\w)", "’", text).replace(" %", "\u00a0%")


def _about(fingerprint: Fingerprint, created: str, seconds: float | None) -> list[str]:
    """The line under the title."""
    method = words.clean(fingerprint.method.split("(")[0])
    owner = f"owner’s model {words.short(fingerprint.owner.id)}"
    took = "" if seconds is None else f"made in {seconds:.0f} s"
    return [part for part in (words.clean(created), owner, f"method {method}", took) if part]


def _figures(
    groups: Sequence[Group],
    rows: Sequence[Row],
    fingerprint: Fingerprint,
    paths: charts.NullPaths | None,
    owner: float | None,
) -> list[tuple[Svg, str, str]]:
    """Pictures with their titles and captions; none without suspects."""
    if not rows:
        return []
    most = max((*fingerprint.schedule, *(row.verdict.asked for row in rows)))
    strip = STRIP if paths is None else f"{STRIP} {LIKE_WITH_LIKE}"
    found = [
        (charts.strip(groups, paths, owner), "How alike the answers are", strip),
        (charts.queries(groups, most), "How many questions it took", QUERIES),
    ]
    if paths is not None and any(row.path for row in rows):
        found.append((charts.paths(rows, paths), "How each verdict came about", PATHS))
    return found


STRIP = "Each mark is a suspect, at its score when questioning ended."
LIKE_WITH_LIKE = (
    "Each dot on top is a null model after all questions. A suspect that matched early was scored on fewer of them: "
    "figure 3 compares like with like."
)
QUERIES = (
    "Questioning stops at the first look that convicts, which costs nothing: the p-value counts all looks. "
    "Suspects at the right end were asked everything."
)
PATHS = (
    "Band: all null models (light), nine in ten of them (darker), their median (line). Dashed paths are innocents. "
    "The decision ranks each path’s highest standardised score among the null models’, so leaving the band once is "
    "not yet a match."
)


def _facts(rows: Sequence[Row], fingerprint: Fingerprint, null: Null) -> list[tuple[str, str]]:
    """What somebody needs to judge again."""
    verdicts = [row.verdict for row in rows]
    return [
        ("fingerprint", fingerprint.digest),
        ("questions (protocol)", fingerprint.probes.digest),
        *(("null", words.clean(d, 100)) for d in findings.unique(v.null_digest for v in verdicts) or [null.digest]),
        ("owner’s model", words.clean(fingerprint.owner.id, 100)),
        ("method", words.clean(fingerprint.method, 400)),
        ("seed", str(fingerprint.seed)),
        ("looks after", ", ".join(map(str, fingerprint.schedule)) + " questions"),
        ("versions", versions()),
    ]


def versions() -> str:
    """What was installed when the page was made."""
    installed = {d for d in ("minutia", "numpy", "scipy") if _installed(d)}
    parts = [f"{name} {metadata.version(name)}" for name in sorted(installed)]
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _commands(rows: Sequence[Row]) -> list[str]:
    """Command lines with places to fill in."""
    levels = findings.unique(f"{row.verdict.alpha:g}" for row in rows) or ["0.01"]
    verify = [f"minutia verify FINGERPRINT SUSPECT --null NULL --alpha {level} --json" for level in levels]
    return ["minutia fingerprint show FINGERPRINT", *verify]
