"""Which stores this user built himself: only those may name code that opens their models.

A manifest names architectures, and ``torch:module:factory`` is code. A store gets a random token when it is made; its
digest is remembered in the user's own data folder. A store from elsewhere carries no token that is known there.
"""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from minutia.core.digest import sha256
from minutia.core.errors import FileError

TOKEN = "origin"
_made_in_this_run: set[Path] = set()


def claim(store: Path) -> None:
    """Remember a store as this user's own."""
    token = store / TOKEN
    if not token.is_file():
        token.write_text(secrets.token_hex(32))
    known = _known()
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(known, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.write(sha256(token.read_bytes()) + "\n")
    except OSError as error:
        raise FileError(
            f"expected to note in {known} that {store} is your own store, got {error.strerror}: "
            "set MINUTIA_DATA_DIR to a folder that can be written"
        ) from error


def made(store: Path) -> None:
    """A store was made just now: claim it, for this run alone where nothing can be noted in the user's folder."""
    _made_in_this_run.add(store.resolve())
    with suppress(FileError):
        claim(store)


def is_own(store: Path) -> bool:
    """Whether this user made the store, or has said that he trusts it."""
    if store.resolve() in _made_in_this_run:
        return True
    token, known = store / TOKEN, _known()
    if not token.is_file() or token.stat().st_size > 1024 or not known.is_file():
        return False
    return sha256(token.read_bytes()) in known.read_text().split()


def is_weights_name(name: str) -> bool:
    """Whether a name in a manifest stays inside its store.

    >>> is_weights_name("models/" + 64 * "a" + ".safetensors"), is_weights_name("../x.safetensors")
    (True, False)
    """
    return re.fullmatch(r"models/[0-9a-f]{64}\.safetensors", name) is not None


def is_own_name(name: str) -> bool:
    """Whether the name of a job's file stays inside its store.

    >>> is_own_name("fingerprints/" + 64 * "a" + ".safetensors"), is_own_name("fingerprints/../x")
    (True, False)
    """
    return re.fullmatch(r"(models|fingerprints|nulls)/[0-9a-f]{64}\.safetensors", name) is not None


def _known() -> Path:
    import platformdirs

    folder = os.environ.get("MINUTIA_DATA_DIR")
    return Path(folder or platformdirs.user_data_path("minutia")) / "own-stores"
