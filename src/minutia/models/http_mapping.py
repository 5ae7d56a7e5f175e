"""The mapping file of an HTTP suspect: where inputs go in a request, where answers stand in a response."""

import base64
import io
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from minutia.core.digest import Array, canonical_json
from minutia.core.errors import FileError, MissingExtraError, ModelError, UsageError
from minutia.core.keys import did_you_mean
from minutia.models import read_bounded

MAX_BYTES = 2**20
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
SECRET = re.compile(r"authorization|cookie|key|token|secret|password", re.IGNORECASE)
"""Headers whose values must come from the environment: a mapping file is kept, shared and digested."""
CHANNELS = (1, 3, 4)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Request(_Part):
    """What is sent: ``body`` with ``$inputs`` (a list, one ``item`` per input) or ``$input`` (one request per input).

    Values are sent as ``scale * x + offset``, rounded if ``whole``, and encoded as nested ``lists``, as ``png`` (base64
    of 8 bits, scale 255 unless told otherwise) or ``raw`` (base64 of little-endian float32).
    """

    body: Any
    item: Any = "$input"
    encoding: Literal["lists", "png", "raw"] = "lists"
    layout: Literal["as-is", "channels-last"] = "as-is"
    scale: Annotated[float, Field(allow_inf_nan=False)] | None = None
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    whole: bool = False

    @model_validator(mode="after")
    def _has_a_place(self) -> "Request":
        try:
            canonical_json([self.body, self.item])
        except (TypeError, ValueError):
            raise UsageError("expected a request.body that JSON can hold, got a date or no number: quote it") from None
        marks = {text for text in _texts(self.body) if "$input" in text}
        items = {text for text in _texts(self.item) if "$input" in text}
        if not marks or ("$inputs" in marks and len(marks) > 1) or (not items or "$inputs" in items):
            raise UsageError(
                f"expected $inputs (a list) or $input (one request per input) in request.body, and $input in "
                f"request.item, got {sorted(marks) or 'none'} and {sorted(items) or 'none'}"
            )
        inside = [text for text in marks | items if text not in ("$input", "$inputs")]
        if inside and (self.encoding == "lists" or "$inputs" in inside[0]):
            raise UsageError(f"expected $input alone, or with encoding png or raw inside a text, got {inside[0]!r}")
        return self

    @property
    def one_by_one(self) -> bool:
        """Whether a request holds a single input."""
        return "$inputs" not in set(_texts(self.body))

    def filled(self, inputs: Array) -> Any:
        """The body for inputs (n, *shape); one by one n is 1."""
        sent = [self._encoded(x) for x in inputs]
        return _filled(self.body, sent[0], [_filled(self.item, x, []) for x in sent])

    def _encoded(self, x: Array) -> Any:
        values = np.asarray(x, np.float64)
        if self.layout == "channels-last" and values.ndim == 3 and self.encoding != "png":
            values = np.moveaxis(values, 0, -1)
        default = 255.0 if self.encoding == "png" else 1.0
        values = values * (default if self.scale is None else self.scale) + self.offset
        if self.encoding == "png":
            return base64.b64encode(_png(values)).decode()
        values = np.rint(values) if self.whole else values
        if self.encoding == "raw":
            return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()
        return values.astype(np.int64).tolist() if self.whole else values.tolist()


class Response(_Part):
    """Where answers stand: one of ``scores``, ``logits``, ``labels`` and ``top``, each a path such as ``out.*.probs``.

    A path names keys and places in lists; ``*`` stands for each entry of a list, the empty path for the whole. Under
    ``$inputs`` it must lead to one entry per input. Scores are a list of numbers, or an object from names to numbers;
    ``top`` is a list of objects, whose keys ``top_label`` and ``top_score`` name. ``classes`` are names in the
    owner's order: a label is looked up among them, else a whole number stands for itself.
    """

    scores: str | None = None
    logits: str | None = None
    labels: str | None = None
    top: str | None = None
    top_label: str = "label"
    top_score: str = "score"
    classes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_one_kind(self) -> "Response":
        given = [name for name in ("scores", "logits", "labels", "top") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(f"expected one of scores, logits, labels and top in response, got {given or 'none'}")
        distinct = len(set(self.classes)) == len(self.classes) != 1
        if not distinct or (self.top is not None and not self.classes):
            raise UsageError(
                f"expected the owner's classes in order as response.classes, two or more distinct names (needed with "
                f"top), got {list(self.classes)}"
            )
        return self

    @property
    def kind(self) -> str:
        """Which of the four is given."""
        return next(name for name in ("scores", "logits", "labels", "top") if getattr(self, name) is not None)

    @property
    def path(self) -> tuple[str, ...]:
        """The path of what is given, in parts."""
        path: str = getattr(self, self.kind)
        return tuple(path.split(".")) if path else ()


class Service(_Part):
    """A service: its address, what is sent, what comes back, and how gently it is asked.

    ``timeout`` is in seconds for one whole answer, ``rate`` in requests per second, ``batch`` in inputs per request.
    ``pause`` is the wait in seconds after a failure that names no time itself. Values of headers may hold ``${NAME}``,
    which stands for an environment variable; only the name is ever kept, digested or shown.
    """

    url: str
    method: Literal["POST", "PUT"] = "POST"
    headers: dict[str, str] = {}
    timeout: Annotated[float, Field(gt=0, le=3600)] = 30.0
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    batch: Annotated[int, Field(ge=1, le=4096)] = 32
    pause: Annotated[float, Field(ge=0, le=60)] = 1.0
    request: Request
    response: Response

    @model_validator(mode="after")
    def _is_safe(self) -> "Service":
        if not _is_address(self.url):
            raise UsageError(
                "expected an address such as https://host/path as url, without a name and password in it, got another: "
                "put secrets into headers, as ${NAME}"
            )
        for name, value in self.headers.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not (value.isascii() and value.isprintable()):
                raise UsageError(
                    f"expected printable ASCII in the header {name[:40]!r}, got something else: correct it"
                )
            if SECRET.search(name) and not VARIABLE.search(value):
                raise UsageError(
                    f"expected the value of the header {name!r} from an environment variable, as in ${{NAME}}, got it "
                    "in the file: mapping files are kept and shared"
                )
        return self

    @property
    def address(self) -> str:
        """The url without its query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    def identity(self) -> dict[str, Any]:
        """Everything that decides who answers and what: not how fast, and no secret."""
        return self.model_dump(mode="json", include={"url", "method", "headers", "request", "response"})

    def filled_headers(self, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Headers with the variables filled in; an absent or unprintable one is named, its value never."""
        for name in (n for value in self.headers.values() for n in VARIABLE.findall(value)):
            value = environment.get(name, "")
            if not value or not (value.isascii() and value.isprintable()):
                what = "an unprintable one" if value else "none"
                raise UsageError(f"expected the environment variable {name} for a header, got {what}: export {name}=…")
        return {
            header: VARIABLE.sub(lambda found: environment[found[1]], value) for header, value in self.headers.items()
        }


def load_service(path: Path) -> Service:
    """Read a mapping file; a misspelt key is answered with the nearest one."""
    data = read_bounded(path, "a mapping file", MAX_BYTES)
    try:
        return service(tomllib.loads(data.decode()), str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FileError(f"expected TOML in {path}, got {type(error).__name__}: {error}"[:300]) from None


def service(found: Mapping[str, Any], where: str = "the mapping") -> Service:
    """Check plain data and make a service of it."""
    try:
        return Service.model_validate(dict(found))
    except ValidationError as error:
        raise UsageError(_sentence(error, where)) from None
    except UsageError as error:
        raise UsageError(f"{error} ({where})") from None


def _sentence(error: ValidationError, where: str) -> str:
    """The first thing that is wrong, in one sentence; what was written is not repeated, it may be a secret."""
    errors = error.errors(include_input=False)
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        parts: dict[str, type[BaseModel]] = {"request": Request, "response": Response}
        known = list((parts.get(str(first["loc"][0]), Service) if len(first["loc"]) > 1 else Service).model_fields)
        near = did_you_mean(str(first["loc"][-1]), known)
        return f"expected a key of {where} ({', '.join(known)}), got {place!r}{near}"
    if first["type"] == "missing":
        return f"expected {place!r} in {where}, found none: add it"
    return f"expected a valid {place!r} in {where}, got another: {first['msg']}"


def _is_address(url: str) -> bool:
    """Whether this can be asked: http or https, a host, no user information, nothing that would break a request."""
    try:
        parts = urlsplit(url)
        fine = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
        )
    except ValueError:
        return False
    return fine and url.isascii() and url.isprintable() and " " not in url


def _texts(template: Any) -> Iterator[str]:
    """Every text in a template, keys excepted."""
    if isinstance(template, str):
        yield template
    for part in template.values() if isinstance(template, dict) else template if isinstance(template, list) else ():
        yield from _texts(part)


def _filled(template: Any, x: Any, rows: Sequence[Any]) -> Any:
    """The template with one input and the list of all inputs in their places."""
    if isinstance(template, dict):
        return {key: _filled(part, x, rows) for key, part in template.items()}
    if isinstance(template, list):
        return [_filled(part, x, rows) for part in template]
    if template in ("$inputs", "$input"):
        return list(rows) if template == "$inputs" else x
    return template.replace("$input", x) if isinstance(template, str) and "$input" in template else template


def _png(values: Array) -> bytes:
    """An image (height, width) or (channels, height, width) with values from 0 to 255 as the bytes of a PNG file."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("pillow", "images", "encoding png") from None
    planes = values[None] if values.ndim == 2 else values
    if planes.ndim != 3 or len(planes) not in CHANNELS:
        raise ModelError(
            f"expected images of shape (height, width) or (1, 3 or 4 channels, height, width) for encoding png, got "
            f"{values.shape}: use encoding lists or raw"
        )
    levels = np.rint(np.clip(planes, 0, 255)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(np.moveaxis(levels, 0, -1))).save(
        file, "PNG"
    )
    return file.getvalue()
