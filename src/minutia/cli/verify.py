"""minutia verify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minutia.cli import console

if TYPE_CHECKING:
    from minutia.core.fingerprint import Fingerprint
    from minutia.models.stability import RepeatNoise
    from minutia.storage.ledger import Ledger


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify")(verify)


def verify(
    fingerprint: Annotated[Path, typer.Argument(help="The owner's fingerprint file.")],
    suspect: Annotated[
        str, typer.Argument(help="onnx:FILE, replay:FILE, torch:module:factory?weights=FILE, or a path.")
    ],
    null: Annotated[
        list[Path] | None,
        typer.Option(
            help="Null file or store of unrelated models, repeatable; default: the file beside the fingerprint."
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Accepted rate of false accusations.")] = 0.01,
    early_stop: Annotated[bool, typer.Option("--early-stop/--ask-all", help="Stop at the first conviction.")] = True,
    labels_only: Annotated[bool, typer.Option("--labels-only", help="Use nothing but the suspect's labels.")] = False,
    max_queries: Annotated[int, typer.Option(min=0, help="Hard stop, 0 for none.")] = 0,
    repeats: Annotated[
        int, typer.Option(min=0, help="Ask ten probes so often again and tell how noisy the answers are, 0 for not.")
    ] = 0,
    journal: Annotated[Path | None, typer.Option(help="Remember answers here; the same command resumes.")] = None,
    transcript: Annotated[Path | None, typer.Option(help="Append the conversation here as JSON lines.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON verdict here as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Tell whether a suspect was made from my model.

    Asks the fingerprint's probes look by look and prints a verdict. Exit code 0 match, 1 no match, 2 error,
    3 inconclusive.
    """
    from contextlib import nullcontext
    from dataclasses import asdict

    from minutia import api, catalog
    from minutia.cli.fingerprint import null_path
    from minutia.core.access import Access
    from minutia.core.errors import UsageError
    from minutia.report.json import dumps
    from minutia.report.terminal import print_verdict
    from minutia.storage.files import load_fingerprint
    from minutia.storage.journal import SqliteJournal

    console.check_output(output)
    if repeats == 1:
        raise UsageError("expected --repeats 2 or more, got 1: one answer tells nothing of noise")
    fp = load_fingerprint(fingerprint)
    beside = null_path(fingerprint)
    found = api.null_from(fp, null or ([beside] if beside.is_file() else []))
    if dry_run:
        console.put(dumps(_plan(fp, found.m, max_queries)), None)
        return
    model, ledger = catalog.model(suspect), _ledger(fingerprint, fp)
    spent = ledger.spent(model.card) if ledger else {}
    if spent:
        console.say(_warning(len(spent), len(fp.probes), len(set[str]().union(*spent.values()))))
    only = Access.LABELS if labels_only else None
    with SqliteJournal(journal) if journal else nullcontext() as kept:
        verdict = api.verify(
            fp,
            ledger.noting(model) if ledger else model,
            found,
            alpha=alpha,
            early=early_stop,
            only=only,
            max_queries=max_queries,
            journal=kept,
            transcript=transcript,
        )
        noise = None
        if repeats:
            wanted = repeats * min(api.FEW, len(fp.probes))
            if max_queries and wanted > max_queries - verdict.asked:
                console.say(f"no repeats: they take {wanted} queries, {max_queries - verdict.asked} are left")
            else:
                noise = api.noise(fp, model, repeats, only=only, journal=kept)
    told = {**verdict.plain(), **({"repeat_noise": asdict(noise)} if noise else {})}
    if output:
        console.put(dumps(told), output)
    if as_json:
        console.put(dumps(told), None)
    else:
        print_verdict(console.stdout(), verdict)
        if noise:
            console.put(_noise(noise), None)
    raise typer.Exit(verdict.exit_code)


def _ledger(path: Path, fp: "Fingerprint") -> "Ledger | None":
    """The ledger of spent keys, for fingerprints that hold a mark."""
    from minutia import catalog
    from minutia.core.mark import Mark
    from minutia.storage.ledger import Ledger

    marked = any(isinstance(method, Mark) for method, _ in catalog.method(fp.method).columns(fp))
    return Ledger(Ledger.beside(path), fp) if marked else None


def _warning(spent: int, keys: int, others: int) -> str:
    return (
        f"{spent} of {keys} keys were asked of {others} other model(s) before: p stays exact, but whoever saw a key "
        "may have trained it away; embed a fresh mark when many are spent"
    )


def _noise(noise: "RepeatNoise") -> str:
    """How steady the answers are, in words."""
    from minutia.report.words import percent

    flips = "not measured" if noise.flip_rate is None else f"{percent(noise.flip_rate)} of repeated questions"
    scores = "not told" if noise.score_deviation is None else f"deviation {noise.score_deviation:.2g}"
    return f"  noise      another label on {flips}; scores: {scores} ({noise.queries} further queries)"


def _plan(fp: "Fingerprint", m: int, max_queries: int) -> dict[str, object]:
    """What verify would ask."""
    looks = [n for n in fp.schedule if not max_queries or n <= max_queries]
    return {
        "method": fp.method,
        "probes": len(fp.probes),
        "first look after": fp.schedule[0],
        "queries at most": looks[-1] if looks else 0,
        "null models": m,
        "smallest p-value": 1 / (m + 1) if m else None,
    }
