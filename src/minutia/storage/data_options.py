"""Options behind the ``?`` of a data spec: ``rows=0:900&classes=0:5``."""

from collections.abc import Mapping, Sequence

from minutia.core.errors import UsageError
from minutia.core.keys import did_you_mean

Options = Mapping[str, str]


def split_options(spec: str, allowed: Sequence[str]) -> dict[str, str]:
    """Options by name; one that is unknown, empty or given twice is refused.

    >>> split_options("digits.npz?rows=0:9&classes=:5", ("rows", "classes"))
    {'rows': '0:9', 'classes': ':5'}
    """
    options: dict[str, str] = {}
    query = spec.partition("?")[2]
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in allowed or not value or name in options:
            near = did_you_mean(name, allowed) if name not in allowed else ": give each once, as name=value"
            raise UsageError(f"expected options ({', '.join(allowed)}) after the data, got {pair!r} in {spec!r}{near}")
        options[name] = value
    return options


def span(options: Options, name: str) -> slice:
    """A range FIRST:LAST of rows or classes; all of them without the option.

    >>> span({"rows": "5:"}, "rows")
    slice(5, None, None)
    """
    text = options.get(name, ":")
    try:
        first, last = (int(t) if t else None for t in text.split(":"))
    except ValueError:
        raise UsageError(f"expected {name}=FIRST:LAST, got {name}={text}: write for example {name}=0:5") from None
    return slice(first, last)


def share(options: Options, name: str) -> slice:
    """One of several equal parts, K/N: every N-th row from the K-th; all of them without the option.

    >>> share({"part": "2/3"}, "part")
    slice(1, None, 3)
    """
    text = options.get(name, "1/1")
    number, _, of = text.partition("/")
    fine = all(t.isascii() and t.isdecimal() and len(t) < 7 for t in (number, of))
    if not fine or not 1 <= int(number) <= int(of):
        raise UsageError(f"expected {name}=K/N with K from 1 to N, got {name}={text}: {name}=1/2 is one half")
    return slice(int(number) - 1, None, int(of))


def whole(options: Options, name: str, default: int, least: int, most: int) -> int:
    """Read a whole number within its limits.

    >>> whole({"size": "32"}, "size", 8, 4, 128)
    32
    """
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdecimal()) or not least <= int(text[:9]) <= most or len(text) > 9:
        raise UsageError(f"expected {name} as a whole number from {least} to {most}, got {name}={text}")
    return int(text)


def switch(options: Options, name: str) -> bool:
    """Read true or false; false without the option.

    >>> switch({"gray": "true"}, "gray"), switch({}, "gray")
    (True, False)
    """
    text = options.get(name, "false")
    if text not in ("true", "false"):
        raise UsageError(f"expected {name}=true or {name}=false, got {name}={text}")
    return text == "true"


def one_of(options: Options, name: str, known: Sequence[str]) -> str:
    """Read one of the known words; "" without the option.

    >>> one_of({"content": "text"}, "content", ("image", "text"))
    'text'
    """
    text = options.get(name, "")
    if text and text not in known:
        raise UsageError(f"expected {name} as one of {', '.join(known)}, got {name}={text}{did_you_mean(text, known)}")
    return text
