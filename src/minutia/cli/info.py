"""minutia methods|models|attacks|doctor."""

import sys
from typing import Annotated, Any

import typer

from minutia.cli import console

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (methods, models, attacks, doctor):
        app.command(command.__name__)(command)


def methods(as_json: Json = False) -> None:
    """List methods, what they need, and their source."""
    from minutia import catalog
    from minutia.core.access import names

    rows = [
        {
            "name": name,
            "question": cls.question,
            "owner needs": ", ".join(names(cls.owner_needs)),
            "suspect needs": ", ".join(names(cls.suspect_needs)),
            "serves": ", ".join(sorted(cls.serves)),
            "parameters": _parameters(cls()),
            "source": cls.source,
        }
        for name in catalog.names("methods")
        for cls in [catalog.load("methods", name)]
    ]
    _listed(rows, as_json)


def models(as_json: Json = False) -> None:
    """List the kinds of models that can be asked."""
    from minutia import catalog

    rows = [
        {"kind": name, "spec": (catalog.load("models", name).__doc__ or "").split("\n")[0]}
        for name in catalog.names("models")
    ]
    _listed(rows, as_json)


def attacks(as_json: Json = False) -> None:
    """List removal attacks, defences and false claims.

    With what they need, their parameters, presets and source. Attacks are joined by a plus: prune+fine_tune_all.
    """
    from minutia import catalog
    from minutia.core.access import names

    rows = [
        {
            "name": name,
            "kind": cls.kind,
            "needs": ", ".join(names(cls.needs)),
            "parameters": _parameters(cls()),
            "presets": ", ".join(f"{name}/{preset}" for preset in cls.presets) or "none",
            "source": cls.source,
        }
        for group in ("attacks", "claims")
        for name in catalog.names(group)
        for cls in [catalog.load(group, name)]
    ]
    _listed(rows, as_json)


def doctor(as_json: Json = False) -> None:
    """Check the installation by running the main job.

    Versions, extras, plug-ins, a fingerprint written and read back, verdicts on toy models. Exit code 0 if all is fine.
    """
    from minutia.study.doctor import examine

    rows = examine()
    _table([{"check": r.check, "state": r.state, "detail": r.detail} for r in rows], as_json)
    if any(r.state == "broken" for r in rows):
        print("something is broken: see the rows above", file=sys.stderr)  # noqa: T201
        raise typer.Exit(2)


def _parameters(plugin: Any) -> str:
    """Default parameters as they are written in a key."""
    from minutia.core.keys import key_of

    return key_of(plugin).removeprefix(plugin.name).strip("()").replace(",", ", ") or "none"


def _listed(rows: list[dict[str, str]], as_json: bool) -> None:
    """Rows as JSON, or one block per row: the first field as its name, the others beneath."""
    if as_json:
        from minutia.report.json import dumps

        console.put(dumps(rows), None)
        return
    from rich.padding import Padding
    from rich.text import Text

    screen = console.stdout()
    for row in rows:
        (_, name), *others = row.items()
        screen.print(Text(name, style="bold"))
        for label, value in others:
            screen.print(Padding(Text(f"{label}: {value}"), (0, 0, 0, 4)))


def _table(rows: list[dict[str, str]], as_json: bool) -> None:
    """Short rows as JSON or as one table."""
    if as_json:
        _listed(rows, as_json)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console.stdout().print(table)
