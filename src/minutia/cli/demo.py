"""minutia demo."""

from pathlib import Path
from typing import Annotated

import typer

from minutia.cli import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where models and the report are kept.")] = Path("minutia-demo"),
    seed: Annotated[int, typer.Option(help="Other models, same story.")] = 0,
    method: Annotated[str, typer.Option(help="Method to show, with parameters.")] = "ipguard",
    jobs: Annotated[int, typer.Option(min=0, help="Processes, 0 for one per core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run the main job on real images, write a report.

    Trains a classifier of handwritten digits, 119 unrelated models and copies of every kind, enrols the classifier and
    judges suspects whose origin is known. Takes about a minute, the second time seconds.
    """
    import os
    from contextlib import ExitStack
    from datetime import UTC, datetime

    from minutia import catalog
    from minutia.report import html, json, terminal
    from minutia.storage.files import write_atomically

    # The models are small: several threads would spend their time waiting for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from minutia.study import demo as study

    with ExitStack() as stack:
        result = study.run(
            folder / f"seed-{seed}",
            method=catalog.method(method),
            seed=seed,
            jobs=jobs,
            told=lambda title: stack.enter_context(console.progress(title)),
        )
    rows = [html.Row(c.suspect, c.truth, c.kind, c.verdict, c.card.fidelity) for c in result.cases]
    page = folder / f"seed-{seed}" / "report.html"
    text = html.render(
        rows,
        result.fingerprint,
        result.null,
        title="minutia demo: whose digits classifier is this?",
        seconds=result.seconds,
        null_paths=(result.looks, result.null_scores),
        owner_score=result.owner_score,
        created=datetime.now(UTC).date().isoformat(),
    )
    write_atomically(page, text.encode(), private=False)
    if as_json:
        console.put(json.dumps(json.document(rows, str(page))), None)
        return
    terminal.print_table(console.stdout(), rows)
    console.put(f"\nreport: {page}  ({result.seconds:.0f} s)", None)
