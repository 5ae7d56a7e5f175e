"""minutia embed, and minutia fingerprint opens."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minutia.cli import console, fingerprint

if TYPE_CHECKING:
    from minutia.core.fingerprint import Fingerprint
    from minutia.core.mark import Mark
    from minutia.core.model import ModelCard

SEED_BITS = 256


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("embed")(embed)
    fingerprint.group.command("opens")(opens)


def embed(
    model: Annotated[str, typer.Argument(help="Your model, such as torch:module:factory?weights=FILE.")],
    data: Annotated[str, typer.Option(help="What it was trained on: an .npz file, a folder, sklearn:digits, …")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the marked weights.")],
    fingerprint: Annotated[
        Path | None, typer.Option(help="Where to write the secret; default: OUTPUT.fingerprint.safetensors.")
    ] = None,
    commitment: Annotated[
        Path | None, typer.Option(help="Where to write the public commitment; default: OUTPUT.commitment.json.")
    ] = None,
    method: Annotated[str, typer.Option(help="Mark with parameters.")] = "trigger_set",
    triggers: Annotated[int, typer.Option(min=0, help="How many triggers, 0 for the method's own number.")] = 0,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Train from fresh weights.")] = False,
    seed_file: Annotated[
        Path | None, typer.Option(help="A secret seed of 32 or more hex digits; default: drawn afresh.")
    ] = None,
    derived: Annotated[Path | None, typer.Option(help="Make copies of the marked model here, for control.")] = None,
    copies: Annotated[int, typer.Option(min=1, help="Copies per kind of theft, where --derived is given.")] = 9,
    jobs: Annotated[int, typer.Option(min=0, help="Processes for making copies, 0 for one per core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train a mark into a model, so that a copy can be proved by its labels alone.

    Writes the marked weights, the secret fingerprint (0600) and a commitment to publish before release. Says what it
    cost on held-out data. The original is untouched; files that exist are never replaced.
    """
    from minutia import api, catalog
    from minutia.report.json import dumps
    from minutia.storage.commitment import save_commitment
    from minutia.storage.data import load_dataset
    from minutia.storage.files import save_fingerprint
    from minutia.storage.models import ModelStore

    secret = fingerprint or output.with_name(f"{output.stem}.fingerprint.safetensors")
    public = commitment or output.with_name(f"{output.stem}.commitment.json")
    _check_fresh(output, secret, public)
    mark, owner, dataset = _mark(method, triggers, from_scratch), catalog.model(model), load_dataset(data)
    store = ModelStore(derived) if derived else None
    with console.progress("copies") as told:
        marked, fp = api.embed(
            owner, dataset, mark, seed=_seed(seed_file), derived=store, copies=copies, jobs=jobs, progress=told
        )
    # The secret first: weights without it would carry a mark that nobody can prove.
    save_fingerprint(fp, secret)
    committed = save_commitment(fp, public)
    found = {
        "spec": api.save_copy(marked, output),
        "fingerprint": str(secret),
        "commitment": str(public),
        "committed": committed,
        "method": fp.method,
        "id": marked.card.id,
        "root": marked.card.root,
        "learnt": marked.card.fidelity["learnt"],
        "utility": _utility(marked.card, len(dataset.test_labels)),
    }
    console.put(dumps(found) if as_json else _text(found, fp), None)


def opens(
    path: Annotated[Path, typer.Argument(metavar="FINGERPRINT", help="The secret fingerprint file.")],
    commitment: Annotated[Path, typer.Argument(help="The commitment that was published.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Check that a fingerprint is the one that was committed to, and that its labels are those its key gives.

    Exit code 0 if both hold, 1 if not.
    """
    from minutia import api
    from minutia.report.json import dumps
    from minutia.storage.commitment import load_commitment
    from minutia.storage.files import load_fingerprint

    found = api.opens(load_commitment(commitment), load_fingerprint(path))
    said = {"committed": found.committed, "redrawn": found.redrawn}
    sentences = (
        f"commitment: {'opened by this fingerprint' if found.committed else 'made of another fingerprint'}",
        f"labels and probes: {'those that the key gives' if found.redrawn else 'not those that the key gives'}",
    )
    console.put(dumps(said) if as_json else "\n".join(sentences), None)
    raise typer.Exit(0 if found.committed and found.redrawn else 1)


def _check_fresh(*paths: Path) -> None:
    """Refuse places that hold something or cannot be written: a secret that is replaced is lost for good."""
    from minutia.core.errors import UsageError

    for path in paths:
        console.check_output(path)
        if path.exists() or len(set(paths)) < len(paths):
            raise UsageError(f"expected three files that are not there yet, got {path}: choose another name")


def _mark(key: str, triggers: int, from_scratch: bool) -> "Mark":
    """The method, with what the shorthands say."""
    from dataclasses import replace

    from minutia import catalog
    from minutia.core.errors import UsageError
    from minutia.core.mark import Mark

    found: Any = catalog.method(key)
    if not isinstance(found, Mark):
        raise UsageError(f"expected a mark such as trigger_set, got {found.name}: 'minutia extract' enrols without one")
    wanted = ({"triggers": triggers} if triggers else {}) | ({"from_scratch": True} if from_scratch else {})
    if not set(wanted) <= set(vars(found)):
        raise UsageError(f"expected a mark with {', '.join(wanted)}, got {found.name}: leave these options out")
    return replace(found, **wanted)


def _seed(path: Path | None) -> int:
    """A secret seed from a file of hexadecimal digits, or a fresh one."""
    import secrets

    from minutia.core.errors import FileError

    if path is None:
        return secrets.randbits(SEED_BITS) | 1 << (SEED_BITS - 1)  # never a short one
    try:
        text = path.read_text().strip()
        if len(text) < 32:
            raise ValueError("too short")
        return int(text, 16)
    except OSError as error:
        raise FileError(f"expected a file with a seed, got {error.strerror}: {path}") from error
    except ValueError as error:
        raise FileError(
            f"expected 32 or more hexadecimal digits in {path}, got something else: "
            "write them with 'openssl rand -hex 32'"
        ) from error


def _utility(card: "ModelCard", held_out: int) -> dict[str, Any] | None:
    """What the mark cost on held-out inputs, with 95 % Clopper-Pearson intervals; None where there are none."""
    from minutia.stats.intervals import clopper_pearson

    cost = card.fidelity
    if "accuracy" not in cost:
        return None
    intervals = {
        f"{name}_interval": list(clopper_pearson(round(cost[name] * held_out), held_out))
        for name in ("accuracy_before", "accuracy", "agreement")
    }
    kept = {name: cost[name] for name in ("accuracy_before", "accuracy", "accuracy_lost", "agreement")}
    return {"held_out": held_out, **kept, **intervals}


def _text(found: dict[str, Any], fp: "Fingerprint") -> str:
    """The result for people."""
    cost = found["utility"]
    lines = {
        "marked model": found["spec"],
        "fingerprint": f"{found['fingerprint']} (secret: whoever reads it can forge or remove the mark)",
        "commitment": f"{found['commitment']} (publish it before the model)",
        "committed": found["committed"],
        "triggers": f"{len(fp.probes)}, {found['learnt']:.0%} learnt",
        "accuracy": "no held-out data: not measured",
    }
    if cost:
        before, after = (f"{cost[n]:.1%} {_ends(cost[f'{n}_interval'])}" for n in ("accuracy_before", "accuracy"))
        lines["accuracy"] = f"{before} before, {after} after, on {cost['held_out']} held-out inputs"
        lines["agreement"] = f"{cost['agreement']:.1%} {_ends(cost['agreement_interval'])} with the model before"
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def _ends(interval: list[float]) -> str:
    return f"[{interval[0]:.1%}, {interval[1]:.1%}]"
