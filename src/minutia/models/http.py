"""A service behind HTTP: ``http:mapping.toml`` says where inputs go in a request, where answers stand in a response.

A timeout, a lost connection, 408, 425, 429 and 5xx say nothing about the suspect and are asked again; ``Retry-After``
is honoured. An answer that cannot be read is the suspect's and counts as no match. Certificates are always checked,
redirects are never followed.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.digest import canonical_json, sha256
from minutia.core.errors import AnswerError, ModelError, UsageError
from minutia.core.model import ModelCard
from minutia.core.probe import ProbeSet
from minutia.models import one_line, split_spec
from minutia.models.http_answers import UNREADABLE, Reader, parsed
from minutia.models.http_mapping import Service, load_service

MAX_ANSWER_BYTES = 16 * 2**20
MAX_PAUSE = 60.0
"""Seconds; a suspect may not make us wait for ever."""
BUSY = (408, 425, 429)
SCORED = Access.LABELS | Access.TOP_K | Access.SCORES
ACCESS = {
    "labels": Access.LABELS,
    "top": Access.LABELS | Access.TOP_K,
    "scores": SCORED,
    "logits": SCORED | Access.LOGITS,
}
REMEDIES = {
    401: "check the environment variables that the headers name",
    403: "check the environment variables that the headers name",
    404: "check the url",
    405: "check the method",
    413: "make batch smaller",
}
REDIRECTED = "name the final address in url, redirects are never followed"


class Pace:
    """Waits between requests, and after a failure; ``rate`` is in requests per second."""

    def __init__(
        self,
        rate: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._step, self._clock, self._sleep = 1 / rate if rate else 0.0, clock, sleep
        self._free = clock()

    def wait(self) -> None:
        """Return when the next request may be sent."""
        if (left := self._free - self._clock()) > 0:
            self._sleep(left)
        self._free = self._clock() + self._step

    def hold(self, seconds: float) -> None:
        """Send nothing for so long, at most a minute."""
        self._free = max(self._free, self._clock() + min(max(seconds, 0.0), MAX_PAUSE))


class HttpModel:
    """A classifier that answers HTTP requests with JSON.

    With ``top`` the model tells some classes only: their scores stand in the row, the others are NaN. The card's id is
    a digest of the address and of how it is asked and read, without secrets; who really answers there, nobody knows.

    >>> from minutia.models.http_mapping import service
    >>> spec = {"url": "https://host/v1", "request": {"body": {"x": "$inputs"}}, "response": {"labels": "classes"}}
    >>> HttpModel(service(spec)).card.recipe
    'POST https://host/v1'
    """

    def __init__(self, service: Service, spec: str = "", *, pace: Pace | None = None) -> None:
        self.spec = spec or f"http:{service.address}"
        self.access = ACCESS[service.response.kind]
        digest = sha256(canonical_json(["http", service.identity()]).encode())
        self.card = ModelCard(digest, digest, f"{service.method} {service.address}")
        self._service, self._pace, self._reader = service, pace or Pace(service.rate), Reader(service.response)
        self._arrived: dict[str, Answers] = {}

    def ask(self, probes: ProbeSet) -> Answers:
        """Answer in batches; what arrived before a failure is not sent again when the same probes are asked next."""
        size = 1 if self._service.request.one_by_one else self._service.batch
        batches = [probes.take(range(i, min(i + size, len(probes)))) for i in range(0, len(probes), size)]
        if not batches:
            return Answers.without(0, Status.OK)
        with self._client() as client:
            for batch in batches:
                if batch.digest not in self._arrived:
                    self._arrived[batch.digest] = self._asked(client, batch)
        answers = Answers.joined([self._arrived[batch.digest] for batch in batches])
        self._arrived.clear()
        return answers

    def _asked(self, client: Any, batch: ProbeSet) -> Answers:
        body = json.dumps(self._service.request.filled(batch.array), allow_nan=False).encode()
        self._pace.wait()
        with self._transport():
            found = self._received(client, body)
        return self._reader.answers(found, len(batch), one_by_one=self._service.request.one_by_one)

    def _received(self, client: Any, body: bytes) -> Any:
        """Send one request and read a bounded answer."""
        deadline = time.monotonic() + self._service.timeout
        with client.stream(self._service.method, self._service.url, content=body) as response:
            self._check(response)
            data = bytearray()
            for chunk in response.iter_raw():
                data += chunk
                if len(data) > MAX_ANSWER_BYTES or response.headers.get("Content-Encoding", "identity") != "identity":
                    return UNREADABLE
                if time.monotonic() > deadline:
                    raise self._lost(f"no complete answer in {self._service.timeout:g} s")
        return parsed(bytes(data))

    def _check(self, response: Any) -> None:
        """A status is a transport failure, a wrong mapping, or fine."""
        status = response.status_code
        if status in BUSY or status >= 500:
            raise self._lost(f"status {_named(status)}", _retry_after(response.headers.get("Retry-After", "")))
        if not 200 <= status < 300:
            remedy = REDIRECTED if status < 400 else REMEDIES.get(status, "check the request in the mapping file")
            raise ModelError(f"expected answers from {self.spec}, got status {_named(status)}: {remedy}")

    def _lost(self, what: str, pause: float | None = None) -> AnswerError:
        """The error that a meter asks again after; the next request waits."""
        self._pace.hold(self._service.pause if pause is None else pause)
        return AnswerError(
            f"expected an answer from {self.spec}, got {what}: ask again later, lower rate or batch, or raise timeout"
        )

    @contextmanager
    def _transport(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except httpx2.TimeoutException:
            raise self._lost(f"no answer in {self._service.timeout:g} s") from None
        except httpx2.ConnectError as error:
            raise self._lost(f"no connection ({one_line(error, 80)})") from None
        except httpx2.RequestError as error:  # its text may quote what was sent
            raise self._lost(f"a broken connection ({type(error).__name__})") from None

    def _client(self) -> Any:
        import httpx2

        usual = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        headers = {**usual, "User-Agent": "minutia", **self._service.filled_headers()}
        return httpx2.Client(timeout=self._service.timeout, headers=headers, follow_redirects=False)


def open_model(rest: str) -> HttpModel:
    """Open ``mapping.toml``: url, headers, request and response of a service; see the page on HTTP services.

    Secrets are named in the file as ``${NAME}`` and read from the environment when a request is sent.
    """
    if rest.startswith("//"):
        raise UsageError(
            f"expected http:mapping.toml, got the address http:{rest.partition('?')[0][:80]}: "
            "write a file that names it as url, and what goes into a request"
        )
    target, _ = split_spec(rest)
    service = load_service(Path(target))
    service.filled_headers()  # an absent variable is told before anything is asked
    return HttpModel(service, f"http:{rest}")


def _named(status: int) -> str:
    """The status with the standard's phrase; the server's own words are not repeated.

    >>> _named(429), _named(799)
    ('429 Too Many Requests', '799')
    """
    known = {s.value: s.phrase for s in HTTPStatus}
    return f"{status} {known[status]}" if status in known else str(status)


def _retry_after(text: str) -> float | None:
    """Seconds from a number or a date; None for nothing or nonsense.

    >>> _retry_after("2"), _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") < 0, _retry_after("soon")
    (2.0, True, None)
    """
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        then = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()
