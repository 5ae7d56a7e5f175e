"""Tables of studies as files: JSON that is believed only if its digest is that of its content."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minutia.core.digest import canonical_json, sha256
from minutia.core.errors import FileError

SCHEMA = "minutia.table/1"
MAX_BYTES = 256 * 2**20
PARTS = {"name": str, "seeds": list, "facts": dict, "methods": list, "claims": list, "apart": list, "date": str}


def digest(body: Mapping[str, Any]) -> str:
    """Digest of everything in a table but measured seconds, dates and digests: what two runs of one study share.

    >>> digest({"rate": 0.5, "seconds": 3.0}) == digest({"rate": 0.5, "seconds": 4.0, "date": "today"})
    True
    """
    return sha256(canonical_json(_timeless(body)).encode())


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {k: v for k, v in value.items() if "seconds" not in k and k not in ("date", "digest")}
        return {k: _timeless(v) for k, v in kept.items()}
    return [_timeless(v) for v in value] if isinstance(value, list | tuple) else value


def load_table(path: Path) -> dict[str, Any]:
    """Read a table as ``minutia bench --json -o`` wrote it.

    Raises FileError for a file that is absent, too large, no JSON, of another schema, incomplete or altered.
    """
    found = _parsed(path)
    if found.get("schema") != SCHEMA:
        raise FileError(
            f"expected a table of the schema {SCHEMA}, got {str(found.get('schema', 'none'))[:60]!r} in {path}: "
            "make the table again with this version of minutia"
        )
    absent = [name for name, kind in PARTS.items() if not isinstance(found.get(name), kind)]
    if absent:
        raise FileError(f"expected a whole table in {path}, got none of {', '.join(absent)}: make the table again")
    found.pop("moved", None)  # what a comparison added when the table was printed
    if digest(found) != found.get("digest"):
        raise FileError(
            f"expected content with the digest {str(found.get('digest'))[:19]}… that {path} promises, got another: "
            "the file was altered; restore it from a copy or make the table again"
        )
    return found


def _parsed(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise FileError(f"expected a table, found nothing at {path}: check the path")
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"expected a table of at most {MAX_BYTES >> 20} MiB, got {path}: it is not one of ours")
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    except OSError as error:
        raise FileError(f"expected a table that can be read, got {error.strerror}: {path}") from error
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"expected a table (JSON), got something else or a damaged one in {path} ({type(error).__name__}): "
            "restore it from a copy or make the table again"
        ) from error
    if not isinstance(found, dict):
        raise FileError(f"expected a table (a JSON object), got {type(found).__name__} in {path}: pass another file")
    return found


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
