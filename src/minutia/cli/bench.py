"""minutia bench, and minutia attack."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minutia.cli import console

if TYPE_CHECKING:
    from minutia.study.bench import Result
    from minutia.study.file import Study

CALIBRATORS_AT_1_PERCENT = 99


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("bench")(bench)
    app.command("attack")(attack)


def bench(
    study: Annotated[
        str, typer.Argument(help="A study file (TOML), or a built-in one: digits, digits-mini, tabular, text.")
    ],
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where models and results are kept; default: minutia-bench/NAME.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Other seeds than the study's, by comma.")] = "",
    access: Annotated[str, typer.Option(help="What suspects show: labels, scores or weights; else the study's.")] = "",
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    address: Annotated[str, typer.Option(help="Address of a Ray cluster.")] = "",
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs per job on a cluster that has some, such as 0.25.")] = 0.0,
    jobs: Annotated[int, typer.Option(min=0, help="Local processes, 0 for one per core.")] = 0,
    compare: Annotated[
        Path | None, typer.Option(help="An older table.json: show what moved beyond its interval.")
    ] = None,
    details: Annotated[bool, typer.Option("--details", help="Every figure of every method.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write the cases as parquet as well.")] = False,
    page: Annotated[Path | None, typer.Option(help="Write the figures as a page of documentation (Markdown).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure methods against attacks and innocents.

    Trains owners, thieves' copies and unrelated models, and judges them all. The same command continues after a kill.
    Writes table.json, cases.csv, rates.csv and report.html.
    """
    import os

    # The models are small: several threads would spend their time waiting for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from minutia.report.json import dumps
    from minutia.storage.tables import load_table

    chosen = _study(study, seeds, access)
    place = folder or Path("minutia-bench") / chosen.name
    console.check_output(place / "table.json")
    console.check_output(page)
    before = load_table(compare) if compare else None
    if chosen.counts.calibrators < CALIBRATORS_AT_1_PERCENT:
        console.say(f"{chosen.counts.calibrators} calibrators cannot decide at 1 %: {CALIBRATORS_AT_1_PERCENT} can")
    if dry_run:
        console.put(dumps(_plan(chosen, place)), None)
        return
    result = _run(chosen, place, engine, address, gpus, jobs)
    _write(result, place, parquet, page)
    _show(result, place, before, details, as_json)


def attack(
    model: Annotated[str, typer.Argument(help="The model to attack, such as torch:module:factory?weights=FILE.")],
    attack: Annotated[str, typer.Argument(help="An attack, 'name/preset(parameter=value)', or several joined by '+'.")],
    data: Annotated[str, typer.Option(help="The thief's inputs with labels: sklearn:digits, an .npz file, a folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the copy's weights.")] = Path(
        "copy.safetensors"
    ),
    foreign: Annotated[str, typer.Option(help="Data of another domain, for attacks that use some.")] = "",
    student: Annotated[str, typer.Option(help="Another architecture, for attacks that use one.")] = "",
    companion: Annotated[str, typer.Option(help="The thief's own model, for merging.")] = "",
    disclosed: Annotated[Path | None, typer.Option(help="A fingerprint whose probes the thief knows.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same copy.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Make a thief's copy of a model and say what it cost.

    The original is untouched. Prints accuracy lost, agreement kept, data, steps and seconds.
    """
    from minutia import api, catalog
    from minutia.core.attack import parts, state_of
    from minutia.core.errors import UsageError
    from minutia.core.model import WeightModel
    from minutia.report.json import dumps
    from minutia.study import zoo
    from minutia.study.battery import knows_probes

    console.check_output(output, model, data, foreign, student, companion, disclosed)
    chosen = catalog.attack(attack)
    if parts(chosen)[1] is not None:
        raise UsageError(
            f"expected an attack that changes weights, got {attack}, which changes answers: 'minutia bench' tries those"
        )
    if disclosed and not knows_probes(chosen.key):
        console.say(f"--disclosed is not used by {attack}: unlearn and boundary_training(known=probes) use it")
    victim = catalog.model(model)
    mate = catalog.model(companion) if companion else None
    thief = zoo.thief(data, foreign=foreign, student=student, companion=mate, disclosed=disclosed)
    made = api.attack(victim, chosen, thief, seed=seed)
    assert isinstance(made, WeightModel)
    spec = api.save_copy(made, output)
    found = {"spec": spec, "attack": chosen.key, "state": state_of(made.card.fidelity), **made.card.plain()}
    console.put(dumps(found) if as_json else _card_text(found), None)


def _study(name: str, seeds: str, access: str) -> "Study":
    """A study file by path, or a built-in study by name, with other seeds or another access where these are given."""
    from minutia.core.errors import UsageError
    from minutia.core.keys import did_you_mean
    from minutia.study.file import built_in, load_study
    from minutia.study.file import study as checked

    known = built_in()
    path = Path(name)
    if path.suffix != ".toml" and not path.exists():
        if name not in known:
            raise UsageError(
                f"expected a study file or one of {', '.join(known)}, got {name!r}{did_you_mean(name, known)}"
            )
        path = known[name]
    study = load_study(path)
    if access:
        study = checked({**study.model_dump(), "access": access}, "--access")
    if not seeds:
        return study
    try:
        numbers = tuple(int(s) for s in seeds.split(","))
    except ValueError:
        raise UsageError(f"expected seeds as whole numbers by comma, such as 1,2,3, got {seeds!r}") from None
    return checked({**study.model_dump(), "seeds": numbers}, "--seeds")


def _plan(study: "Study", place: Path) -> dict[str, Any]:
    """What bench would do."""
    from minutia.study.battery import SURROGATES
    from minutia.study.file import study_attacks

    attacks, counts = list(study_attacks(study)), study.counts
    founders = 3 + counts.calibrators + counts.spent + counts.innocents + counts.per_rung * (len(study.rungs()) - 1)
    founders += counts.spent_other + 2 * counts.spent_halves
    family = 1 + counts.calibrators + counts.spent + counts.per_rung if study.ancestor_epochs and counts.per_rung else 0
    copies = (counts.surrogates + 2 * (counts.surrogates // 2)) * len(SURROGATES) + sum(
        a.copies + (0 if a.curve else counts.attacked_innocents) for a in attacks
    )
    return {
        "study": study.name,
        "seeds": list(study.seeds),
        "methods": list(study.all_methods),
        "attacks": [a.label for a in attacks if not a.curve],
        "curves": [c.title for c in study.curves],
        "models from scratch per seed": founders,
        "children of a public ancestor per seed": family,
        "suspects that were attacked per seed, at least": copies,
        "kept in": str(place),
    }


def _run(study: "Study", place: Path, engine: str, address: str, gpus: float, jobs: int) -> "Result":
    from contextlib import ExitStack

    from minutia.study import bench as benches
    from minutia.study.engines import engine as engine_of

    with ExitStack() as stack, engine_of(engine, jobs=jobs, address=address, gpus=gpus) as workers:

        def told(title: str) -> console.Progress:
            stack.close()  # one bar at a time
            return stack.enter_context(console.progress(title))

        return benches.run(study, place, workers, told=told)


def _write(result: "Result", place: Path, parquet: bool, page: Path | None) -> None:
    """All files of one run, each written whole or not at all."""
    from minutia.report import bench_files, bench_html, bench_markdown
    from minutia.report.json import dumps
    from minutia.storage.files import write_atomically

    texts = {
        "table.json": dumps(result.table),
        "cases.csv": bench_files.cases_csv(result.rows),
        "rates.csv": bench_files.rates_csv(result.table),
        "report.html": bench_html.render(result.table),
    }
    for name, text in texts.items():
        write_atomically(place / name, text.encode(), private=False)
    if parquet:
        write_atomically(place / "cases.parquet", bench_files.parquet_bytes(result.rows), private=False)
    if page is not None:
        write_atomically(page, bench_markdown.page(result.table).encode(), private=False)


def _show(result: "Result", place: Path, before: dict[str, Any] | None, details: bool, as_json: bool) -> None:
    from minutia.report import bench_compare, bench_terminal
    from minutia.report.json import dumps

    moved = bench_compare.compare(result.table, before) if before else None
    if as_json:
        console.put(dumps(result.table if moved is None else {**result.table, "moved": moved}), None)
        return
    bench_terminal.print_table(console.stdout(), result.table, details=details)
    if moved is not None:
        bench_compare.print_comparison(console.stdout(), moved)
    console.put(f"\nreport: {place / 'report.html'}   table: {place / 'table.json'}", None)


def _card_text(found: dict[str, Any]) -> str:
    """The card for people: what was made, and what it cost."""
    cost = {name: f"{value:.4g}" for name, value in found["fidelity"].items()}
    named = {"copy": found["spec"], "attack": found["attack"], "id": found["id"], "root": found["root"]}
    meaning = {"destroyed": "destroyed: too little accuracy is left to be worth stealing", "diverged": "diverged"}
    lines = {**named, **cost, "state": meaning.get(found["state"], "fine")}
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())
