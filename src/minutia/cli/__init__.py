"""The command line: thin modules, one per group of commands; heavy imports happen inside the commands."""

import os
import sys
from typing import Annotated, Any

import typer

INTERRUPTED = 130
"""What shells use for a command ended by Ctrl-C."""

app = typer.Typer(
    name="minutia",
    help="minutia tells whose model this is: extract a fingerprint, verify a suspect, with an honest error rate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 match or fine, 1 no match, 2 error or wrong usage, 3 inconclusive.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from minutia import __version__

        typer.echo(f"minutia {__version__}")
        raise typer.Exit


@app.callback()
def common(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Options for all commands."""
    from minutia.cli import console

    console.QUIET = quiet


def _register() -> None:
    from minutia.cli import bench, check, compare, demo, embed, fingerprint, info, lineage, null, verify

    for module in (fingerprint, verify, compare, lineage, check, embed, null, bench, demo, info):
        module.register(app)


_register()


# Typer carries its own copy of click in some versions: their common error class is found through a public name.
_USAGE_ERRORS: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def main() -> None:
    """Run and exit with the documented code; whatever goes wrong is never exit 0 or 1."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader went away: nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 2
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    # Threads that wait by spinning make other processes on the same cores several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command: Any = typer.main.get_command(app)
    try:
        code = int(command.main(arguments, prog_name="minutia", standalone_mode=False) or 0)
    except _USAGE_ERRORS as error:
        error.show()
        return 2
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except (BrokenPipeError, SystemExit):  # typer exits with 1 where the reader of a pipe went away
        return 2
    except Exception as error:
        if not _interrupted(error):
            return _failed(error)
        code = INTERRUPTED
    if code == INTERRUPTED:  # some versions of typer return it, others raise
        typer.echo("interrupted: the same command continues where it stopped", err=True)
    return code


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: a library that it hits may answer with an error of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _failed(error: Exception) -> int:
    """One sentence for errors made on purpose; a traceback for defects of ours, and exit code 2 for both."""
    from minutia.core.errors import MinutiaError

    if isinstance(error, MinutiaError) and "MINUTIA_DEBUG" not in os.environ:
        # The sentence may quote a hostile file or model: control characters would steer the terminal.
        typer.echo("minutia: " + "".join(c if c.isprintable() else "\ufffd" for c in str(error)), err=True)
    else:
        import traceback

        traceback.print_exception(error)
    return 2
