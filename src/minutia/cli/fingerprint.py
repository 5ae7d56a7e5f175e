"""minutia extract, and minutia fingerprint show|diff."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minutia.cli import console

if TYPE_CHECKING:
    from minutia.core.fingerprint import Fingerprint, Null

group = typer.Typer(help="Look at fingerprint files.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("extract")(extract)
    app.add_typer(group, name="fingerprint")


def extract(
    model: Annotated[str, typer.Argument(help="The owner's model, such as torch:module:factory?weights=FILE.")],
    data: Annotated[str, typer.Option(help="Inputs with labels: an .npz file, a folder of images, sklearn:digits, …")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the fingerprint.")] = Path(
        "fingerprint.safetensors"
    ),
    method: Annotated[
        str, typer.Option(help="A method, such as 'ipguard(probes=50)', several joined by '+', or all that fit.")
    ] = "portfolio",
    unrelated: Annotated[
        Path | None, typer.Option(help="Store of 'minutia null build': spent models screen, calibrators judge.")
    ] = None,
    derived: Annotated[Path | None, typer.Option(help="Where stored copies are made; default: --unrelated.")] = None,
    copies: Annotated[int, typer.Option(min=0, help="Stored copies per kind of theft, 0 for none.")] = 9,
    surrogates: Annotated[
        int, typer.Option(min=0, help="Copies per way of copying, as many again on halves of the data; 0 for none.")
    ] = 4,
    student: Annotated[str, typer.Option(help="Another architecture for some of these copies.")] = "",
    threats: Annotated[
        str, typer.Option(help="Kinds of theft to rule out before 'no match', by comma; default: all that are known.")
    ] = "",
    attack_data: Annotated[str, typer.Option(help="Data that thieves train on; default: --data.")] = "",
    allow: Annotated[
        str, typer.Option(help="For 'minutia check': number formats that are no change (half, bfloat16, int8, int4).")
    ] = "",
    reserve_for: Annotated[
        Path | None,
        typer.Option(help="An earlier fingerprint: this one must recognise thieves who unlearnt its probes."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same digest.")] = 0,
    jobs: Annotated[int, typer.Option(min=0, help="Processes for making copies, 0 for one per core.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Enrol a model: write its fingerprint.

    Crafts probes, stores the owner's answers and those of copies made for control, and writes the null beside it.
    """
    from minutia import api, catalog
    from minutia.core.access import Access
    from minutia.core.errors import FileError, UsageError
    from minutia.core.fingerprint import THREATS
    from minutia.core.judge import unlike_owner
    from minutia.report.json import dumps
    from minutia.storage.data import load_dataset
    from minutia.storage.files import load_fingerprint, save_fingerprint, save_null
    from minutia.storage.models import ModelStore

    console.check_output(output)
    chosen, owner, dataset = catalog.method(method), catalog.model(model), load_dataset(data)
    if allow and chosen.question != "integrity":
        raise UsageError(f"expected --allow with a method for 'minutia check', got {chosen.name}: leave it out")
    first = load_fingerprint(reserve_for) if reserve_for else None
    if first is not None and chosen.question != "origin":
        raise UsageError(f"expected --reserve-for with a method for the question of origin, got {chosen.name}")
    if unrelated is not None and not (unrelated / "zoo.json").is_file():
        raise FileError(f"expected a store made by 'minutia null build', found no zoo.json in {unrelated}")
    if dry_run:
        console.put(dumps(_plan(chosen.key, owner.spec, dataset, copies, unrelated, derived)), None)
        return
    if chosen.question == "integrity":
        formats = [name.strip() for name in allow.split(",") if name.strip()]
        fp = api.enrol_integrity(owner, dataset, chosen, allow=formats, seed=seed)
        save_fingerprint(fp, output)
        found = _shown(fp) | {"file": str(output), "files": _files(fp)}
        console.put(dumps(found) if as_json else _text(found), None)
        return
    if unrelated is None:
        console.say("no --unrelated: the probes are not screened and there is no null beside the fingerprint")
    if copies and not (unrelated or derived):
        console.say("no copies for control: name a store for them with --derived or --unrelated")
    elif copies and Access.TRAIN not in owner.access:
        console.say(f"no copies for control: {owner.spec} cannot be trained, so nothing will be ruled out")
    stores = {name: ModelStore(path) if path else None for name, path in (("u", unrelated), ("d", derived))}
    with console.progress("copies") as told:
        fp = api.extract(
            owner,
            dataset,
            chosen,
            unrelated=stores["u"],
            derived=stores["d"],
            copies=copies,
            surrogates=surrogates,
            student=student,
            attack_data=attack_data,
            threats=tuple(t.strip() for t in threats.split(",")) if threats else THREATS,
            reserve_for=first,
            seed=seed,
            jobs=jobs,
            progress=told,
        )
    save_fingerprint(fp, output)
    null = api.observe_null(fp, stores["u"]) if stores["u"] else None
    if null is not None and null.m:
        save_null(null, null_path(output))
    found = _shown(fp) | {"file": str(output), "null": null.m if null else 0}
    if null is not None and null.m:
        if unlike_owner(fp.owner, [o.subject for o in null.observations]):
            console.say("the null was not trained like the owner's model: held-out accuracy or confidence is another")
        found["recognises"] = _recognised(fp, null)
    console.put(dumps(found) if as_json else _text(found), None)


@group.command("show")
def show(
    path: Annotated[Path, typer.Argument(help="A fingerprint file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show what a fingerprint holds, digest checked."""
    from minutia.report.json import dumps
    from minutia.storage.files import load_fingerprint

    found = _shown(load_fingerprint(path))
    console.put(dumps(found) if as_json else _text(found), None)


@group.command("sketch")
def sketch(
    checkpoint: Annotated[
        str, typer.Argument(help="A language model's checkpoint: a file, a folder, https://, hf://.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the sketch.")],
    seed: Annotated[int, typer.Option(min=0, help="Draws the units; only sketches of one seed can be compared.")] = 0,
) -> None:
    """Write a small sketch of a checkpoint, which 'minutia compare' takes in place of the weights."""
    from minutia import api
    from minutia.report.comparison import side

    console.check_output(output, checkpoint)
    console.say(f"sketched {side(api.sketch(checkpoint, output, seed=seed))}")
    console.put(str(output), None)


@group.command("diff")
def diff(
    first: Annotated[Path, typer.Argument(help="A fingerprint file.")],
    second: Annotated[Path, typer.Argument(help="Another fingerprint file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Compare two fingerprints field by field.

    Exit code 0 if they are the same value, 1 if not.
    """
    from minutia import api
    from minutia.report.json import dumps
    from minutia.storage.files import load_fingerprint

    one, two = load_fingerprint(first), load_fingerprint(second)
    left, right = _shown(one), _shown(two)
    changed = {k: {"first": left[k], "second": right[k]} for k in left if left[k] != right[k]}
    same = one.digest == two.digest
    found = {"same": same, "agreement_on_common_probes": api.prefix_agreement(one, two), "changed": changed}
    console.put(dumps(found) if as_json else _diff_text(found), None)
    raise typer.Exit(0 if same else 1)


def _files(fp: "Fingerprint") -> dict[str, str]:
    """Digests of the enrolled model's files by name."""
    from minutia import api

    recorded = api.recorded_files(fp)
    return {} if recorded is None else {name: f"sha256:{digest}" for name, digest in recorded.digests.items()}


def null_path(fingerprint: Path) -> Path:
    """Where extract writes the null of a fingerprint, and where verify looks for it.

    >>> null_path(Path("mine.safetensors")).name
    'mine.null.safetensors'
    """
    return fingerprint.with_name(f"{fingerprint.stem}.null.safetensors")


def _recognised(fp: "Fingerprint", null: "Null") -> dict[str, str]:
    """How many of the owner's model and the stored copies would be convicted against this null."""
    from minutia import catalog
    from minutia.core.yardstick import powers, yardstick

    stick = yardstick(catalog.method(fp.method), fp, null)
    shares = powers(stick, fp, 0.01)
    return {kind: f"{round(share * len(fp.controls[kind]))}/{len(fp.controls[kind])}" for kind, share in shares.items()}


def _plan(
    key: str, spec: str, data: object, copies: int, unrelated: Path | None, derived: Path | None
) -> dict[str, object]:
    """What extract would do."""
    from minutia.core.fingerprint import THREATS

    where = derived or unrelated
    return {
        "method": key,
        "model": spec,
        "data": getattr(data, "spec", ""),
        "copies": len(THREATS) * copies if where else 0,
        "copies in": str(where) if where else None,
        "screened with": str(unrelated) if unrelated else None,
    }


def _shown(fp: object) -> dict[str, object]:
    """The fields people ask for."""
    from minutia.core.fingerprint import Fingerprint

    assert isinstance(fp, Fingerprint)
    return {
        "digest": fp.digest,
        "method": fp.method,
        "question": fp.question,
        "owner": fp.owner.id,
        **({"members": {p.method: p.why or _part(len(p.rows)) for p in fp.members}} if fp.members else {}),
        "probes": len(fp.probes),
        "shape": list(fp.probes.array.shape[1:]),
        "looks": list(fp.schedule),
        "controls": {kind: len(seen) for kind, seen in fp.controls.items()},
        "spent": len(fp.spent),
        "threats": list(fp.threats),
        "protocol": fp.probes.digest,
        "seed": "secret" if _marked(fp.method) else fp.seed,
        "format": fp.format,
    }


def _marked(key: str) -> bool:
    """Whether a mark is among these methods: its seed gives every key away."""
    from minutia import catalog
    from minutia.core.keys import split_chain
    from minutia.core.mark import Mark

    names = {step.partition("(")[0] for step in split_chain(key)} & set(catalog.names("methods"))
    return any(issubclass(catalog.load("methods", name), Mark) for name in names)


def _part(probes: int) -> str:
    """What a member of a portfolio has: probes, or nothing to ask where it reads weights."""
    return f"{probes} probes" if probes else "reads weights"


def _text(found: dict[str, object]) -> str:
    shown = dict(found)
    members = shown.get("members")
    if isinstance(members, dict):  # a line for each, by name; keys with every parameter are in --json
        shown["method"] = f"portfolio of {len(members)}"
        shown["members"] = f"\n{'':<13}".join(f"{key.partition('(')[0]}: {what}" for key, what in members.items())
    width = max(map(len, shown))
    return "\n".join(f"{name:<{width}}  {_plain(value)}" for name, value in shown.items())


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _diff_text(found: Mapping[str, object]) -> str:
    if found["same"]:
        return "same fingerprint"
    changed, agreement = found["changed"], found["agreement_on_common_probes"]
    assert isinstance(changed, dict)
    lines = [f"{name}: {_plain(pair['first'])} -> {_plain(pair['second'])}" for name, pair in changed.items()]
    shared = "no common probes" if agreement is None else f"answers agree on {agreement:.0%} of the common probes"
    return "\n".join([*lines, shared])
