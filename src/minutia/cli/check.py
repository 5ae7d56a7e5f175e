"""minutia check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minutia.cli import console

if TYPE_CHECKING:
    from minutia.core.fingerprint import Fingerprint
    from minutia.core.model import Model


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    model: Annotated[str, typer.Argument(help="What was downloaded: onnx:FILE, torch:module:factory?weights=FILE, …")],
    against: Annotated[Path, typer.Option(help="The publisher's fingerprint, made with --method sensitive_samples.")],
    manifest: Annotated[
        Path | None, typer.Option(help="The publisher's model-signing file; its signature is not verified.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Accepted rate of false alarms.")] = 0.01,
    labels_only: Annotated[bool, typer.Option("--labels-only", help="Use nothing but the model's labels.")] = False,
    max_queries: Annotated[int, typer.Option(min=0, help="Hard stop, 0 for none.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON verdict here as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Tell whether a download is the model that was released, unchanged.

    Compares the files' SHA-256 digests, and asks at most ten questions where they differ. Exit code 0 intact,
    1 changed, 2 error, 3 inconclusive.
    """
    from minutia import api, catalog
    from minutia.core import integrity
    from minutia.core.access import Access
    from minutia.report.json import dumps
    from minutia.report.terminal import print_verdict
    from minutia.storage.files import load_fingerprint

    console.check_output(output, model, against, manifest)
    fp, suspect = load_fingerprint(against), catalog.model(model)
    found = _files(fp, suspect, manifest)
    only = Access.LABELS if labels_only else None
    verdict = api.check(fp, suspect, alpha=alpha, only=only, max_queries=max_queries)
    if found["manifest"] not in (None, "identical"):
        verdict = integrity.flagged(verdict, "manifest-differs")
    document = dumps(verdict.plain() | {"files": found})
    if output:
        console.put(document, output)
    if as_json:
        console.put(document, None)
    else:
        print_verdict(console.stdout(), verdict)
        _print_files(found)
    raise typer.Exit(verdict.exit_code)


def _files(fp: "Fingerprint", suspect: "Model", listed: Path | None) -> dict[str, object]:
    """Digests of the suspect's files, and how they compare with those recorded and those the publisher lists."""
    from minutia import api
    from minutia.storage.manifest import compared, manifest_of, read_manifest, same

    files, recorded = api.model_files(suspect), api.recorded_files(fp)
    mine = manifest_of(files) if files else None
    theirs = read_manifest(listed) if listed else None
    return {
        "sha256": dict(mine.digests) if mine else {},
        "recorded": None if mine is None or recorded is None else "identical" if same(mine, recorded) else "different",
        "manifest": None if theirs is None else "not listed" if mine is None else compared(mine, theirs),
        "signature": "not verified" if listed else None,
    }


def _print_files(found: dict[str, object]) -> None:
    """The files under the verdict, as ``sha256sum`` prints them."""
    from minutia.report.words import clean

    digests = found["sha256"]
    assert isinstance(digests, dict)
    lines = [f"{digest}  {clean(name, 120)}" for name, digest in digests.items()]
    lines += [f"recorded at enrolment: {found['recorded']}"] if found["recorded"] else []
    if found["manifest"]:
        lines.append(f"publisher's manifest: {found['manifest']} (its signature is not verified here)")
    if lines:
        console.put("\n" + "\n".join(lines), None)
