"""Commitments: a small file that binds an owner to a secret fingerprint before the model is released.

Published or time-stamped by a third party, it proves later that probes, labels and key were fixed then; it tells
nothing else. The commitment is the SHA-256 of the canonical JSON of the opening, which holds a salt.
"""

import hmac
import json
from pathlib import Path
from typing import Any

from minutia.core.digest import array_digest, canonical_json, sha256
from minutia.core.errors import FileError, UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.storage.files import write_atomically

SCHEMA = "minutia.commitment/1"
LEAST_BITS = 64
"""A seed with fewer bits can be guessed, and with it everything that was drawn from it."""
MAX_BYTES = 1 << 16


def opening(fp: Fingerprint) -> dict[str, Any]:
    """What is hashed: salt, seed, method with parameters, probes, drawn labels and key, and the marked model's id.

    The salt is HMAC-SHA256 of the commitment's schema under the seed in decimal, so it is as secret as the seed.
    """
    if fp.seed.bit_length() < LEAST_BITS:
        raise UsageError(
            f"expected a fingerprint from a secret seed of {LEAST_BITS} or more bits, got one of "
            f"{fp.seed.bit_length()}: anybody could guess it, draw one with secrets.randbits(256)"
        )
    return {
        "schema": SCHEMA,
        "salt": hmac.digest(str(fp.seed).encode(), SCHEMA.encode(), "sha256").hex(),
        "seed": str(fp.seed),
        "method": fp.method,
        "probes": fp.probes.digest,
        "arrays": {name: array_digest(array) for name, array in sorted(fp.arrays.items())},
        "model": fp.owner.id,
    }


def commitment(fp: Fingerprint) -> str:
    """The commitment to a fingerprint; another probe, label, key, method or model gives another one."""
    return sha256(canonical_json(opening(fp)).encode())


def save_commitment(fp: Fingerprint, path: Path) -> str:
    """Write the public file and return the commitment."""
    found = commitment(fp)
    text = json.dumps({"schema": SCHEMA, "commitment": found}, indent=1) + "\n"
    write_atomically(path, text.encode(), private=False)
    return found


def load_commitment(path: Path) -> str:
    """Read the commitment of a public file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("too large")
        body = json.loads(path.read_bytes())
        if body["schema"] != SCHEMA or not isinstance(body["commitment"], str):
            raise ValueError("another schema")
        return str(body["commitment"])
    except OSError as error:
        raise FileError(f"expected a commitment that can be read, got {error.strerror}: {path}") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise FileError(
            f"expected a commitment ({SCHEMA}), got something else in {path}: name the file that 'minutia embed' wrote"
        ) from error
