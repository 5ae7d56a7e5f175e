"""minutia null build|observe."""

from pathlib import Path
from typing import Annotated

import typer

from minutia.cli import console

group = typer.Typer(
    help="Unrelated models: what an innocent suspect would look like.", no_args_is_help=True, rich_markup_mode=None
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="null")


@group.command("build")
def build(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to store the models in.")] = Path("nulls"),
    like: Annotated[str, typer.Option(help="The owner's architecture, such as torch:module:factory.")] = "",
    data: Annotated[str, typer.Option(help="Training data: an .npz file, a folder of images, sklearn:digits, …")] = "",
    count: Annotated[
        int,
        typer.Option(
            "-n",
            "--count",
            min=0,
            help="Calibrators; at alpha 0.01, 99 decide with one method and 111 with a portfolio.",
        ),
    ] = 111,
    spent: Annotated[
        int, typer.Option(min=0, help="Further models that methods learn from, and never calibrate.")
    ] = 80,
    spent_halves: Annotated[
        int, typer.Option(min=0, help="Such models on each half of the data: methods learn what is the data's doing.")
    ] = 20,
    checkpoints: Annotated[
        int, typer.Option(min=0, help="States kept along every such training: more to learn from, no more models.")
    ] = 0,
    collect: Annotated[
        list[str] | None, typer.Option(help="Take this finished unrelated model instead of training; repeatable.")
    ] = None,
    rung: Annotated[
        str,
        typer.Option(
            help="Rung of the negative ladder; needed with --collect, default 'same data and recipe, other seed'."
        ),
    ] = "",
    epochs: Annotated[int, typer.Option(min=0, help="Training plan.")] = 12,
    batch_size: Annotated[int, typer.Option(min=1, help="Training plan.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Training plan.")] = 4e-3,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Training plan.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Same seed, same digests.")] = 0,
    jobs: Annotated[int, typer.Option(min=0, help="Processes, 0 for one per core.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train or collect unrelated models of one rung.

    They are stored by content; the same command continues after a kill.
    """
    from minutia import api
    from minutia.core.errors import UsageError
    from minutia.core.fingerprint import HARDEST_RUNG
    from minutia.core.model import Plan
    from minutia.report.json import dumps
    from minutia.storage.models import ModelStore

    if bool(like and data) == bool(collect):
        raise UsageError("expected --like and --data to train, or --collect for finished models, got both or neither")
    if collect and not rung:
        raise UsageError(
            "expected --rung with --collect, got none: only you know where these models come from, "
            "such as 'same data and recipe, other seed' or 'other architecture, same data'"
        )
    rung = rung or HARDEST_RUNG
    plan = Plan(epochs, batch_size, learning_rate, weight_decay)
    if dry_run:
        trains = count + (spent + 2 * spent_halves) * (1 + checkpoints)
        console.put(dumps({"trains": trains, "plan": plan.plain(), "rung": rung, "in": str(output)}), None)
        return
    store = ModelStore(output)
    if collect:
        entries = api.collect_null(store, collect, rung=rung, spent=min(spent, len(collect) // 5))
    else:
        with console.progress("unrelated models") as told:
            entries = api.build_null(
                store,
                api.Recipe(like, data, plan, rung),
                calibrators=count,
                spent=spent,
                spent_halves=spent_halves,
                checkpoints=checkpoints,
                seed=seed,
                jobs=jobs,
                progress=told,
            )
    m, screening = (sum(e.role == role for e in entries) for role in ("calibrator", "spent"))
    found = {"store": str(output), "calibrators": m, "spent": screening, "rung": rung, "p_floor": 1 / (m + 1)}
    text = f"{m} calibrators and {screening} spent models in {output} ({rung}); smallest p-value {1 / (m + 1):.4g}"
    console.put(dumps(found) if as_json else text, None)


@group.command("observe")
def observe(
    fingerprint: Annotated[Path, typer.Argument(help="The fingerprint whose probes are asked.")],
    unrelated: Annotated[Path, typer.Option(help="Store of unrelated models.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Null file; default: beside the fingerprint.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Ask unrelated models the probes, keep the answers."""
    from minutia import api
    from minutia.cli.fingerprint import null_path
    from minutia.core.errors import FileError
    from minutia.report.json import dumps
    from minutia.storage.files import load_fingerprint, save_null
    from minutia.storage.models import ModelStore

    console.check_output(output)
    fp = load_fingerprint(fingerprint)
    if not (unrelated / "zoo.json").is_file():
        raise FileError(f"expected a store made by 'minutia null build', found no zoo.json in {unrelated}")
    with console.progress("null") as told:
        null = api.observe_null(fp, ModelStore(unrelated), progress=told)
    target = output or null_path(fingerprint)
    save_null(null, target)
    found = {"file": str(target), "models": null.m, "source": null.source, "digest": null.digest}
    console.put(dumps(found) if as_json else f"{null.m} models ({null.rung}) observed, written to {target}", None)


@group.command("trust")
def trust(store: Annotated[Path, typer.Argument(help="A store from elsewhere whose code you have read.")]) -> None:
    """Allow a store from elsewhere to name code.

    Its models may be built by Python code that its zoo.json names. Stores you build are trusted from the start.
    """
    from minutia.core.errors import FileError
    from minutia.storage.trust import claim

    if not (store / "zoo.json").is_file():
        raise FileError(f"expected a store made by 'minutia null build', found no zoo.json in {store}")
    claim(store)
    console.put(f"{store} may now name code that opens its models", None)
