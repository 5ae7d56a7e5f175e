"""The vocabulary of a checkpoint as strings, from the tokenizer's file beside it."""

import json
from typing import Any

from minutia.core.errors import FileError
from minutia.models.byte_ranges import ByteRanges

MAX_FILE = 2**26
MAX_TOKENS = 2**22


def read_vocabulary(source: ByteRanges) -> tuple[str, ...]:
    """Tokens by their number; numbers without a token get an empty string. FileError for a file that is none.

    Knows ``tokenizer.json`` of the tokenizers library: a vocabulary as a mapping or a list, and added tokens.
    """
    if source.size > MAX_FILE:
        raise FileError(f"expected a tokenizer of at most {MAX_FILE >> 20} MiB, got {source.name}: check it")
    try:
        held = json.loads(source.read(0, source.size).tobytes())
        numbers = _numbers(held["model"]["vocab"]) | {t["content"]: t["id"] for t in held.get("added_tokens", [])}
        most = max(numbers.values(), default=-1)
        whole = all(isinstance(t, str) and isinstance(n, int) and 0 <= n < MAX_TOKENS for t, n in numbers.items())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _unknown(source, type(error).__name__) from None
    if not whole:
        raise _unknown(source, "tokens that are no strings with numbers")
    found = [""] * (most + 1)
    for token, number in numbers.items():
        found[number] = token
    return tuple(found)


def _numbers(vocabulary: Any) -> dict[str, int]:
    """Mapping of tokens to numbers, from a mapping or from a list of tokens with their scores."""
    if isinstance(vocabulary, dict):
        return dict(vocabulary)
    return {item[0]: number for number, item in enumerate(vocabulary)}


def _unknown(source: ByteRanges, why: str) -> FileError:
    return FileError(
        f"expected the vocabulary of a tokenizer.json in {source.name}, got {why}: compare without the file"
    )
