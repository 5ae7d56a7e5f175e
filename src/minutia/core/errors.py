"""Every error minutia raises on purpose, as one tree.

MinutiaError
├── UsageError          a parameter, name or combination that cannot work
│   └── UnknownNameError    no method, model kind or attack of that name
├── MissingExtraError   an optional dependency is not installed
├── ModelError          a model cannot be loaded, or cannot be asked these probes
│   └── AnswerError         a model raised while answering; asking again may help
├── FileError           a file is truncated, altered, foreign or of another format
├── NullError           a null that may not be used for this fingerprint
├── ProtocolError       an observation made under another protocol
└── BudgetError         a hard stop for queries was reached

Each message is one sentence of three parts: what was expected, what was found, what to do.
"""


class MinutiaError(Exception):
    """Base of all errors that are the input's or the environment's fault; the command line exits with 2."""


class UsageError(MinutiaError):
    """A parameter, a name or a combination of options that cannot work."""


class UnknownNameError(UsageError):
    """No plug-in of that name is installed."""


class MissingExtraError(MinutiaError):
    """An optional dependency is needed and absent; the message holds the exact pip line."""

    def __init__(self, package: str, extra: str, what: str) -> None:
        super().__init__(f"{what} needs {package}, which is not installed: pip install 'minutia[{extra}]'")
        self._arguments = (package, extra, what)

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str, str]]:
        """Survive the way back from a worker process."""
        return type(self), self._arguments


class ModelError(MinutiaError):
    """A model cannot be loaded, or cannot answer probes of this shape."""


class AnswerError(ModelError):
    """A model raised an error while it was answering; asking again may help."""


class FileError(MinutiaError):
    """A file is truncated, altered, foreign or of a format this version does not read."""


class NullError(MinutiaError):
    """A null that may not judge this fingerprint: other probes, or models that were already spent."""


class ProtocolError(MinutiaError):
    """An observation was made under another protocol than the fingerprint's: a different experiment."""


class BudgetError(MinutiaError):
    """The hard stop for queries was reached before the work was done."""
