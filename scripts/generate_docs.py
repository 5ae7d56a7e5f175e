"""Write the reference pages that can be read off the code; with --check, say which of them are out of date.

python scripts/generate_docs.py          writes docs/reference/cli.md, plugins.md and flags.md
python scripts/generate_docs.py --check  writes nothing; exit 1 if a page differs from what would be written
"""

import inspect
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args, get_type_hints

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- Written by scripts/generate_docs.py from the code: change the code, then run `make docs`. -->"


def main(arguments: list[str]) -> int:
    """Write or check every page."""
    if arguments not in ([], ["--check"]):
        print(f"expected nothing or --check, got {' '.join(arguments)}", file=sys.stderr)  # noqa: T201
        return 2
    stale = [name for name, text in pages().items() if not _up_to_date(name, text)]
    for name in stale:
        if arguments:
            print(f"docs/reference/{name} is out of date: run make docs", file=sys.stderr)  # noqa: T201
        else:
            (REFERENCE / name).write_text(pages()[name], encoding="utf-8")
            print(f"wrote docs/reference/{name}")  # noqa: T201
    return 1 if arguments and stale else 0


def pages() -> dict[str, str]:
    """Every generated page by file name."""
    return {"cli.md": _page(cli()), "plugins.md": _page(plugins()), "flags.md": _page(flags())}


def commands(command: Any = None, path: tuple[str, ...] = ("minutia",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with the words that call it, groups before their members."""
    command = _root() if command is None else command
    yield path, command
    for name in sorted(getattr(command, "commands", {})):
        yield from commands(command.commands[name], (*path, name))


def cli() -> Iterator[str]:
    """Describe the commands: usage, arguments, options."""
    yield "# Command line"
    yield (
        "One section per command. Every command also takes `--help`. A spec such as `onnx:FILE` names a model: see "
        "[methods, models and attacks](plugins.md#models)."
    )
    yield "\n".join(
        (
            "| exit code | meaning |",
            "|---|---|",
            "| 0 | match; or the command did what it should |",
            "| 1 | no match; for `fingerprint diff`: the two differ |",
            "| 2 | error or wrong usage; a missing, unreadable or unsupported target is always 2 |",
            "| 3 | inconclusive |",
            "| 130 | interrupted from the keyboard |",
        )
    )
    yield (
        "The result goes to stdout, progress and remarks to stderr. Progress is shown on a terminal only, and not with "
        "`--quiet` or `NO_COLOR`. With `MINUTIA_DEBUG` set, an error shows where in the code it was raised."
    )
    for path, command in commands():
        yield from _command(path, command)


def plugins() -> Iterator[str]:
    """Describe the built-in methods, kinds of models and attacks; what other packages add is not listed."""
    from minutia.core.access import names

    yield "# Methods, models and attacks"
    yield (
        "What this version brings. Other packages can add more by the same entry points; `minutia methods`, "
        "`minutia models` and `minutia attacks` list what is installed."
    )
    yield "## Methods"
    yield (
        "On the command line a method is written with the parameters that differ from the default, such as "
        "`'ipguard(probes=50)'`. A fingerprint records all of them, and the version."
    )
    methods = list(_built_in("methods"))
    yield _table(
        ("method", "question", "owner gives", "suspect gives", "serves", "source"),
        (
            [
                _link(n),
                m.question,
                _join(names(m.owner_needs)),
                _join(names(m.suspect_needs)),
                _join(sorted(m.serves)),
                m.source,
            ]
            for n, m in methods
        ),
    )
    for name, method in methods:
        yield from (f"### {name}", *_docstring(method), f"H0: {method.h0}.", _parameters(method))
    yield "## Models"
    yield "A model is named by a spec, `kind:rest`. A bare path is recognised by its first bytes if that is possible."
    for name, opener in _built_in("models"):
        yield from (f"### {name}", *_docstring(inspect.getmodule(opener)), *_docstring(opener))
    yield "## Attacks"
    yield (
        "What a thief may do to a copy. *Kind* is the word used in threat lists and verdicts. The copy's *weights* are "
        "the victim's, changed; or fresh ones that learn from its answers; or the victim's own behind other answers. A "
        "preset is written `name/preset` and holds the parameters that a paper prints."
    )
    attacks = list(_built_in("attacks"))
    yield _table(
        ("attack", "kind", "needs", "weights", "source"),
        ([_link(n), a.kind, _join(names(a.needs)), _weights(a), a.source] for n, a in attacks),
    )
    for name, attack in attacks:
        yield from (f"### {name}", *_docstring(attack), _parameters(attack), _presets(name, attack))
    yield "## False claims"
    yield "What an accuser may do to convict the innocent; used by studies."
    for name, claim in _built_in("claims"):
        yield from (f"### {name}", *_docstring(claim), _parameters(claim), _presets(name, claim))


def flags() -> Iterator[str]:
    """Describe the flags of a verdict."""
    from minutia.core.judge import HIDING, UNDECIDABLE
    from minutia.core.verdict import FLAGS

    yield "# Flags"
    yield (
        "A flag is a reason not to take a verdict at face value. Flags are raised in one place, the same for every "
        "method. See also [how to read a verdict](../how-to/read-a-verdict.md)."
    )
    yield f"With one of these the verdict is always inconclusive: {_codes(UNDECIDABLE)}."
    yield f"With one of these a low score is no sign of innocence, so nothing is ruled out: {_codes(HIDING)}."
    for name, flag in FLAGS.items():
        yield f"## {name}"
        yield "\n".join(
            (f"- **Raised if** {flag.raised_if}.", f"- **Meaning** {flag.meaning}.", f"- **What to do** {flag.remedy}.")
        )


def _up_to_date(name: str, text: str) -> bool:
    path = REFERENCE / name
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _page(blocks: Iterable[str]) -> str:
    return "\n\n".join([NOTE, *(b for b in blocks if b)]) + "\n"


def _root() -> Any:
    import typer

    from minutia.cli import app

    return typer.main.get_command(app)


def _command(path: tuple[str, ...], command: Any) -> Iterator[str]:
    members = sorted(getattr(command, "commands", {}))
    shown = [p for p in command.params if not getattr(p, "hidden", False)]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    options = [p for p in shown if p.param_type_name == "option" and p.name != "help"]
    yield f"## {' '.join(path)}"
    yield _sentence(command.help)
    usage = [*path, *(["[OPTIONS]"] if options else []), *map(_metavar, arguments), *(["COMMAND"] if members else [])]
    yield f"```text\n{' '.join(usage)}\n```"
    if members:
        yield "Commands: " + ", ".join(f"[`{m}`](#{'-'.join((*path, m))})" for m in members) + "."
    if arguments:
        yield _table(
            ("argument", "meaning"), ([f"`{_metavar(a)}`", _sentence(getattr(a, "help", ""))] for a in arguments)
        )
    if options:
        kinds = get_type_hints(inspect.unwrap(command.callback)) if command.callback else {}
        rows = ([_spelling(o, kinds.get(o.name)), _default(o), _sentence(o.help)] for o in options)
        yield _table(("option", "default", "meaning"), rows)


def _metavar(argument: Any) -> str:
    name = str(argument.name).upper()
    return name if argument.required else f"[{name}]"


def _spelling(option: Any, kind: Any) -> str:
    names = ", ".join(f"`{n}`" for n in (*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} {_kind(kind)}"


def _kind(annotation: Any) -> str:
    """Name the type of an option's value; optional and repeatable ones by what one value is."""
    inner = [_kind(a) for a in get_args(annotation) if a is not type(None)]
    return inner[0] if inner else {int: "number", float: "number", Path: "path"}.get(annotation, "text")


def _default(option: Any) -> str:
    if option.required:
        return "*required*"
    if option.multiple:
        return "*repeatable*"
    plain = option.default
    if option.is_flag:
        return f"`{option.opts[0]}`" if plain and option.secondary_opts else ""
    return "" if plain is None or callable(plain) or str(plain) == "" else f"`{plain}`"


def _built_in(group: str) -> Iterator[tuple[str, Any]]:
    """Yield our own plug-ins, even where the packages of others have added theirs."""
    for point in sorted(entry_points(group=f"minutia.{group}"), key=lambda p: p.name):
        if point.value.startswith("minutia."):
            yield point.name, point.load()


def _docstring(thing: Any) -> Iterator[str]:
    """Yield the paragraphs of a docstring as Markdown; examples become code blocks."""
    for paragraph in inspect.cleandoc(thing.__doc__ or "").split("\n\n"):
        if paragraph.lstrip().startswith(">>>"):
            yield f"```pycon\n{textwrap.dedent(paragraph)}\n```"
        else:
            yield " ".join(paragraph.replace("``", "`").split())


def _parameters(cls: Any) -> str:
    rows = [(f"`{f.name}`", f"`{f.default!r}`") for f in fields(cls)]
    return _table(("parameter", "default"), rows) if rows else "It has no parameters."


def _presets(name: str, cls: Any) -> str:
    rows = [
        (f"`{name}/{preset}`", ", ".join(f"`{n}={v!r}`" for n, v in values.items()) or "the defaults")
        for preset, values in cls.presets.items()
    ]
    return _table(("preset", "parameters"), rows) if rows else ""


def _weights(attack: Any) -> str:
    if attack.serving:
        return "kept, behind other answers"
    return "changed" if attack.keeps_weights else "fresh"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(c).replace("|", "\\|").replace("\n", " ") for c in r] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def _link(name: str) -> str:
    return f"[{name}](#{name})"


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"[`{n}`](#{n})" for n in sorted(names))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
