"""minutia compare."""

from pathlib import Path
from typing import Annotated

import typer

from minutia.cli import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    first: Annotated[str, typer.Argument(help="A checkpoint: a file, a folder, https://…, hf://org/name@revision.")],
    second: Annotated[str, typer.Argument(help="The other one, of whatever format.")],
    alpha: Annotated[float, typer.Option(help="Accepted rate of false accusations.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Draws the layers and units that are looked at.")] = 0,
    weak: Annotated[
        bool, typer.Option("--weak", help="Show measures without a null as well; they decide nothing.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write a page with the layers as a picture here.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON document here as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Tell from two checkpoints alone whether one was made from the other.

    Reads safetensors, npz, GGUF, ONNX and torch files as data and executes nothing. Exit code 0 derived, 1 unrelated,
    2 error, 3 undecided, or a shared ancestor or initialisation.
    """
    from minutia import api
    from minutia.core.errors import UsageError
    from minutia.report.comparison import print_comparison
    from minutia.report.comparison_html import render
    from minutia.report.json import dumps

    console.check_output(output, first, second)
    console.check_output(report, first, second)
    if output and report and output.resolve() == report.resolve():
        raise UsageError(f"expected two files for --report and --output, got {report} twice: name another")
    found = api.compare(first, second, alpha=alpha, seed=seed, weak=weak)
    if report:
        console.put(render(found), report)
    if output:
        console.put(dumps(found.plain()), output)
    if as_json:
        console.put(dumps(found.plain()), None)
    else:
        print_comparison(console.stdout(), found)
    raise typer.Exit(found.comparison.exit_code)
