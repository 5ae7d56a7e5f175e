"""minutia lineage."""

from pathlib import Path
from typing import Annotated

import typer

from minutia.cli import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("lineage")(lineage)


def lineage(
    places: Annotated[
        list[str],
        typer.Argument(metavar="PLACE…", help="Folders of checkpoints, or checkpoints: files, https://, hf://."),
    ],
    alpha: Annotated[float, typer.Option(help="Accepted rate of false links, over all pairs.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Draws the weights that are looked at.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write a page with the trees as a picture here.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON document here as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Tell which checkpoints were made from which.

    Prints trees with the support of each edge and of its direction. Exit code 0 if any was made from another, 1 if
    none was, 2 error, 3 if no edge found is supported.
    """
    from minutia import api
    from minutia.report.json import dumps
    from minutia.report.lineage_html import render
    from minutia.report.lineage_text import lineage_lines

    for place in (output, report):
        console.check_output(place, *places)
    with console.progress("reading") as progress:
        found = api.lineage(places, alpha=alpha, seed=seed, progress=progress)
    if report:
        console.put(render(found.plain()), report)
    if output:
        console.put(dumps(found.plain()), output)
    console.put(dumps(found.plain()) if as_json else "\n".join(lineage_lines(found.plain())), None)
    raise typer.Exit(found.exit_code)
