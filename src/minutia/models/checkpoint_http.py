"""Files behind ``http(s)://``, by range requests: each answer must be the part that was asked for, of one file."""

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import FileError, UsageError
from minutia.models import one_line
from minutia.models.byte_ranges import check_range

SMALL = 16 * 2**20
"""A file up to here is taken whole from a server that knows no ranges."""
PART = 8 * 2**20
"""Bytes that are asked for at once."""
FIRST = 2**16
"""Bytes that the first request brings along: most headers lie in them."""
MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (408, 425, 429)
EXPIRED = (401, 403, 404, 410)
MAX_PAUSE = 60.0
"""Seconds; a server may not make us wait for ever."""
DEADLINE = 300.0
"""Seconds for one part, however slowly it drips."""
REMEDIES = {
    401: "check the token (HF_TOKEN for hf://)",
    403: "check the token (HF_TOKEN for hf://), or ask for access",
    404: "check the address",
}

# Without a handler Python would print each retry to stderr; a program that wants them sets up logging.
logging.getLogger("stamina").addHandler(logging.NullHandler())


class AbsentError(FileError):
    """There is no such file on the server."""


class HttpBytes:
    """A file on a server that knows ranges; a small one may also come from a server that does not.

    5xx, 408, 425, 429, timeouts, lost connections and truncated answers are asked again, ``attempts`` times in all,
    after ``wait`` seconds at first. FileError for every other status, for a part that is not the one asked for, and
    for a file that changes (its size, ETag or date) between two requests. ``token`` goes to the address's own host
    only; a redirect never leads from https to http. Messages show the address without its query.

    >>> HttpBytes("ftp://host/model.gguf")
    Traceback (most recent call last):
    minutia.core.errors.UsageError: expected an http:// or https:// address, got 'ftp://host/model.gguf'
    """

    gap, lanes = 2**15, 8

    def __init__(self, address: str, token: str = "", *, attempts: int = 5, wait: float = 0.25) -> None:
        import httpx2

        place = _split(address)
        if place is None:
            raise UsageError(f"expected an http:// or https:// address, got {address[:120]!r}")
        self.name, self.size, self.bytes_read = _shown(place), 0, 0
        self._url, self._token, self._attempts, self._wait = address, token, attempts, wait
        self._direct = address  # where redirects led to
        self._same: dict[str, str] = {}
        self._counting = threading.Lock()
        usual = {"User-Agent": "minutia", "Accept-Encoding": "identity"}
        self._client = httpx2.Client(timeout=30.0, headers=usual, follow_redirects=False)
        try:
            self._head = self._again(0, FIRST, self._opened)
        except BaseException:
            self.close()
            raise

    def read(self, start: int, length: int) -> Array:
        """See ``ByteRanges``."""
        check_range(self, start, length)
        data, at = np.empty(length, np.uint8), start
        if start < len(self._head):
            known = self._head[start : start + length]
            data[: len(known)] = np.frombuffer(known, np.uint8)
            at += len(known)
        while at < start + length:
            count = min(PART, start + length - at)
            data[at - start : at - start + count] = np.frombuffer(self._again(at, count, self._part), np.uint8)
            at += count
        return data

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _again(self, start: int, count: int, receive: Any) -> bytes:
        """Ask for a part until it comes, or until the attempts are used up."""
        import stamina

        data = b""
        try:
            for attempt in stamina.retry_context(
                on=_pause, attempts=self._attempts, timeout=None, wait_initial=self._wait, wait_jitter=self._wait
            ):
                with attempt, self._requested(start, count) as response:
                    data = receive(response, start, count)
        except _LostError as error:
            raise FileError(
                f"expected bytes {start} to {start + count} of {self.name}, got {error} {self._attempts} times: "
                "try again later, or download the file"
            ) from None
        return data

    @contextmanager
    def _requested(self, start: int, count: int) -> Iterator[Any]:
        """The answer behind all redirects; what goes wrong on the way there or back is told apart."""
        import httpx2

        url = self._direct
        try:
            for _ in range(MAX_REDIRECTS + 1):
                own = {"Authorization": f"Bearer {self._token}"} if self._token and _origin(url) == self._home else {}
                asked = {"Range": f"bytes={start}-{start + count - 1}", **own}
                with self._client.stream("GET", url, headers=asked) as response:
                    if response.status_code not in REDIRECTS:
                        self._check(response, url)
                        self._direct = url
                        yield response
                        return
                    url = self._next(url, response.headers.get("Location", ""))
        except httpx2.TimeoutException:
            raise _LostError("no answer in time") from None
        except httpx2.RequestError as error:  # its text may quote what was sent
            raise _LostError(f"a broken connection ({type(error).__name__})") from None
        except (httpx2.InvalidURL, ValueError) as error:
            raise FileError(f"expected a readable address, got {one_line(error, 80)}: check it") from None
        raise FileError(f"expected {self.name}, got more than {MAX_REDIRECTS} redirects: name the final address")

    @property
    def _home(self) -> tuple[str, str, int]:
        return _origin(self._url)

    def _next(self, url: str, location: str) -> str:
        try:
            following = urljoin(url, location)
        except ValueError:
            following = ""
        place = _split(following)
        if not location or place is None or (url.startswith("https:") and place.scheme != "https"):
            raise FileError(
                f"expected a redirect of {self.name} to an https:// address, got "
                f"{_shown(place) if place else location[:80]!r}: name the final address"
            )
        return following

    def _check(self, response: Any, url: str) -> None:
        """Only 200 and 206 hold the file; an address that redirects led to may have expired."""
        status = response.status_code
        if status in EXPIRED and url != self._url and self._same:
            self._direct = self._url
            raise _LostError(f"status {_named(status)}")
        if status in BUSY or status >= 500:
            raise _LostError(f"status {_named(status)}", _retry_after(response.headers.get("Retry-After", "")))
        if status not in (200, 206):
            kind = AbsentError if status in (404, 410) else FileError
            raise kind(
                f"expected {self.name}, got status {_named(status)}: {REMEDIES.get(status, 'check the address')}"
            )
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FileError(f"expected {self.name} as it is, got it packed: the server changes files, download it")

    def _opened(self, response: Any, start: int, count: int) -> bytes:
        """The first answer: it tells the size, and whether the server knows ranges."""
        self._same = {name: response.headers.get(name, "") for name in ("ETag", "Last-Modified")}
        if response.status_code == 200:
            return self._taken_whole(response)
        first, last, self.size = self._range(response)
        if (first, last) != (0, min(count, self.size) - 1):
            raise self._strange(response, start, count)
        return self._body(response, last + 1)

    def _taken_whole(self, response: Any) -> bytes:
        """A server that knows no ranges sends everything: accepted up to a limit."""
        said = response.headers.get("Content-Length", "")
        if said.isdecimal() and int(said[:20]) <= SMALL:
            self.size = int(said)
            return self._body(response, self.size)
        raise FileError(
            f"expected a server that sends parts of {self.name}, got one that knows no ranges and a file of "
            f"{said[:20] or 'unknown size'} bytes: download it, and name the local file"
        )

    def _part(self, response: Any, start: int, count: int) -> bytes:
        if response.status_code != 206 or self._range(response) != (start, start + count - 1, self.size):
            raise self._strange(response, start, count)
        for name, before in self._same.items():
            if before != response.headers.get(name, ""):
                raise FileError(
                    f"expected the same file at {self.name} all the time, got another {name}: it was replaced while it "
                    "was read, start again"
                )
        return self._body(response, count)

    def _range(self, response: Any) -> tuple[int, int, int]:
        """First, last and size of a ``Content-Range``; (-1, -1, -1) for nonsense."""
        found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", response.headers.get("Content-Range", ""))
        return (int(found[1]), int(found[2]), int(found[3])) if found else (-1, -1, -1)

    def _body(self, response: Any, length: int) -> bytes:
        """Exactly so many bytes."""
        data, deadline = bytearray(), time.monotonic() + DEADLINE
        for piece in response.iter_raw():
            data += piece
            with self._counting:
                self.bytes_read += len(piece)
            if len(data) > length:
                raise FileError(f"expected {length} bytes from {self.name}, got more: do not trust the server")
            if time.monotonic() > deadline:
                raise _LostError(f"{len(data)} of {length} bytes in {DEADLINE:g} s")
        if len(data) < length:
            raise _LostError(f"{len(data)} of {length} bytes")
        return bytes(data)

    def _strange(self, response: Any, start: int, count: int) -> FileError:
        said = response.headers.get("Content-Range", "none")
        return FileError(
            f"expected bytes {start} to {start + count} of {self.name}, got status {_named(response.status_code)} with "
            f"range {said[:60]!r}: the server does not keep to ranges, or the file was replaced; download it"
        )


class _LostError(Exception):
    """Something between us and the file that may be gone next time."""

    def __init__(self, what: str, pause: float | None = None) -> None:
        super().__init__(what)
        self.pause = pause


def _pause(error: Exception) -> bool | float:
    """Whether to ask again, and after how many seconds if the server says so."""
    if not isinstance(error, _LostError):
        return False
    return True if error.pause is None else min(max(error.pause, 0.01), MAX_PAUSE)


def _retry_after(text: str) -> float | None:
    """Seconds; None for a date or nonsense, which leave the pause to us."""
    return float(text.strip()[:9]) if text.strip().isdecimal() else None


def _split(address: str) -> SplitResult | None:
    """The parts of an http(s) address; None for everything else."""
    try:
        place = urlsplit(address)
        port = place.port
    except ValueError:
        return None
    fits = place.scheme in ("http", "https") and place.hostname and address.isprintable() and port != 0
    return place if fits and len(address) <= 8192 else None


def _origin(url: str) -> tuple[str, str, int]:
    place = urlsplit(url)
    return place.scheme, place.hostname or "", place.port or {"http": 80}.get(place.scheme, 443)


def _shown(place: SplitResult) -> str:
    """The address without what may be secret: user, password, query."""
    return urlunsplit((place.scheme, place.netloc.rpartition("@")[2], place.path, "", ""))


def _named(status: int) -> str:
    known: Mapping[int, str] = {s.value: s.phrase for s in HTTPStatus}
    return f"{status} {known[status]}" if status in known else str(status)
