"""HTTP suspects against a real server: what is sent, what is read, and everything that goes wrong on the way."""

import base64
import io
import ipaddress
import json
import logging
import re
import ssl
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from tests.services import TOY, reply, scores, serving

from minutia import Material, Null, Observation, api, catalog
from minutia.checks import check_model
from minutia.core.access import Access
from minutia.core.answers import Status
from minutia.core.errors import AnswerError, FileError, ModelError, UsageError
from minutia.core.probe import numbered
from minutia.models.http import HttpModel, Pace, open_model
from minutia.models.http_answers import Reader, found_at, parsed
from minutia.models.http_mapping import Request, Response, load_service, service
from minutia.models.metered import Metered
from minutia.models.toy import ToyClassifier
from minutia.storage.journal import SqliteJournal

PROBES = numbered(np.random.default_rng(0).random((10, 4), dtype=np.float32), {"channel": "array"})
ANSWERS = TOY.ask(PROBES)
NAMES = ("cat", "dog", "eel")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def model(url="http://127.0.0.1:9/", response=None, request=None, **more):
    found = {
        "url": url,
        "pause": 0.0,
        "request": request or {"body": {"instances": "$inputs"}},
        "response": response or {"scores": "predictions.*.p"},
        **more,
    }
    return HttpModel(service(found))


def asked(act, probes=PROBES, **more):
    """What a service that acts so is understood to say."""
    with serving(act) as served:
        return model(served.url, **more).ask(probes)


# --- what is sent, what is read


def test_a_served_model_answers_as_the_model_does():
    with serving() as served:
        suspect = model(served.url, batch=4)
        answers = suspect.ask(PROBES)
        assert [len(sent["instances"]) for _, sent in served.received] == [4, 4, 2]
        np.testing.assert_array_equal(answers.labels, ANSWERS.labels)
        np.testing.assert_allclose(answers.scores, ANSWERS.scores, atol=1e-6)
        sent = np.concatenate([np.array(sent["instances"], np.float32) for _, sent in served.received])
        np.testing.assert_array_equal(sent, PROBES.array), "float32 survives JSON"
        check_model(suspect, PROBES)


def test_logits_and_labels_and_columns():
    def logits(call, sent):
        return reply([row.tolist() for row in TOY.ask(numbered(np.array(sent["instances"]), {})).logits])

    def labels(call, sent):
        found = TOY.ask(numbered(np.array(sent["instances"]), {})).labels
        return reply({"out": {"classes": [NAMES[label] for label in found]}})

    found = asked(logits, response={"logits": ""})
    np.testing.assert_allclose(found.scores, ANSWERS.scores, atol=1e-6)
    np.testing.assert_allclose(found.logits, ANSWERS.logits, atol=1e-6)
    found = asked(labels, response={"labels": "out.classes", "classes": NAMES})
    assert found.scores is None and found.labels.tolist() == ANSWERS.labels.tolist()


def test_one_request_per_input_and_scores_by_name():
    def by_name(call, sent):
        (row,) = TOY.ask(numbered(np.array([sent["x"]]), {})).scores.tolist()
        return reply({"result": dict(zip(NAMES, row, strict=True))})

    with serving(by_name) as served:
        one = model(served.url, {"scores": "result", "classes": NAMES}, {"body": {"x": "$input"}})
        np.testing.assert_allclose(one.ask(PROBES).scores, ANSWERS.scores, atol=1e-6)
        assert len(served.received) == 10
        check_model(one, PROBES)


def test_the_best_k_leave_the_others_untold():
    def top(call, sent):
        rows = TOY.ask(numbered(np.array(sent["instances"]), {})).scores
        best = [np.argsort(-row, kind="stable")[:2] for row in rows]
        return reply(
            [[{"label": NAMES[i], "score": float(row[i])} for i in b] for row, b in zip(rows, best, strict=True)]
        )

    with serving(top) as served:
        suspect = model(served.url, {"top": "", "classes": NAMES})
        found = suspect.ask(PROBES)
        assert suspect.access == Access.LABELS | Access.TOP_K
        np.testing.assert_array_equal(found.scores, ANSWERS.showing(2).scores)
        np.testing.assert_array_equal(found.labels, ANSWERS.labels)
        assert Metered(suspect).ask(PROBES).labels.tolist() == ANSWERS.labels.tolist()


def test_pixels_as_png_as_bytes_and_as_whole_numbers():
    image = pytest.importorskip("PIL.Image")
    levels = np.random.default_rng(1).integers(0, 256, (2, 3, 5, 4))
    probes = np.asarray(levels / 255, np.float32)
    (text,) = Request(body={"b64": "data:image/png;base64,$input"}, encoding="png").filled(probes[:1]).values()
    opened = image.open(io.BytesIO(base64.b64decode(text.partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(opened), np.moveaxis(levels[0], 0, -1))
    grey = Request(body="$input", encoding="png", scale=127.5, offset=127.5).filled(2 * probes[:1, 0] - 1)
    np.testing.assert_array_equal(np.asarray(image.open(io.BytesIO(base64.b64decode(grey)))), levels[0, 0])
    raw = Request(body=["$inputs"], item={"d": "$input"}, encoding="raw").filled(probes)
    found = [np.frombuffer(base64.b64decode(entry["d"]), "<f4").reshape(3, 5, 4) for entry in raw[0]]
    np.testing.assert_array_equal(found, probes)
    whole = Request(body="$inputs", whole=True, scale=255.0, layout="channels-last").filled(probes)
    assert whole == np.moveaxis(levels, 1, -1).tolist()
    with pytest.raises(ModelError, match=r"expected images of shape .* for encoding png, got \(4,\)"):
        Request(body="$input", encoding="png").filled(PROBES.array[:1])


@given(
    st.recursive(
        st.none() | st.floats() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_whatever_is_answered_gives_rows_or_one_sentence(body):
    for response in ({"scores": ""}, {"labels": "*"}, {"top": "", "classes": NAMES}, {"logits": "0", "classes": NAMES}):
        try:
            found = Reader(Response(**response)).answers(body, 2, one_by_one=False)
        except ModelError as error:
            assert "the same classes every time" in str(error)
            continue
        assert len(found) == 2 and (found.labels[found.status == Status.OK] >= 0).all()


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
def test_scores_are_read_to_the_last_bit(rows):
    body = parsed(json.dumps({"a": [{"b": row} for row in rows]}).encode())
    found = Reader(Response(scores="a.*.b")).answers(body, len(rows), one_by_one=False)
    np.testing.assert_array_equal(found.scores, np.array(rows, np.float32))


def test_paths():
    body = {"a": [{"b": [1, 2]}, {"c": 3}, 4]}
    assert found_at(body, ("a", "*", "b", "1")) == [2, None, None]
    assert found_at(body, ()) is body
    assert [found_at(body, p) for p in [("a", "9"), ("a", "b"), ("b", "*"), ("a", "0", "b", "0", "x")]] == [None] * 4
    assert found_at(body, ("a", "9" * 40)) is None


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (1, 1),
        (1.0, 1),
        ("eel", 2),
        ("1", -1),
        ("cow", -1),
        (3, -1),
        (-1, -1),
        (True, -1),
        (None, -1),
        ([1], -1),
        (10**400, -1),
        (1.5, -1),
    ],
)
def test_labels_are_names_or_numbers(value, label):
    assert Reader(Response(labels="", classes=NAMES)).answers(value, 1, one_by_one=True).labels.tolist() == [label]


def test_names_come_before_numbers():
    """A service that counts from one has its numbers as names."""
    read = Reader(Response(labels="", classes=("1", "2", "3")))
    assert [read.answers(v, 1, one_by_one=True).labels[0] for v in (1, "3", 3.0, 0)] == [0, 2, 2, 0]


# --- answers that are none


BAD_ROWS = [
    None,
    [],
    [0.5],
    "text",
    [0.2, "0.8", 0.0],
    [0.2, float("nan"), 0.8],
    [True, 0.0, 0.0],
    [1e999, 0, 0],
    {"cat": 1},
]


@pytest.mark.parametrize("row", BAD_ROWS, ids=repr)
def test_one_bad_row_is_invalid_and_the_others_count(row):
    def act(call, sent):
        body = json.loads(scores(call, sent)[2])
        body["predictions"][3]["p"] = row
        return reply(body)

    found = asked(act)
    assert np.flatnonzero(found.status == Status.INVALID).tolist() == [3]
    np.testing.assert_array_equal(np.delete(found.labels, 3), np.delete(ANSWERS.labels, 3))


BAD_BODIES = {
    "cut": b'{"predictions": [',
    "empty": b"",
    "html": b"<html>down</html>",
    "deep": b"[" * 200_000,
    "other": b'{"error": "no"}',
    "number": b"3",
    "short": b'{"predictions": [{"p": [0.2, 0.3, 0.5]}]}',
    "no text": b"\xff\xfe\x00",
    "long number": b'{"predictions": ' + b"9" * 6000 + b"}",
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_an_answer_that_cannot_be_read_is_the_suspects(name):
    def act(call, sent):
        return reply(BAD_BODIES[name]) if call == 1 else scores(call, sent)

    with serving(act) as served:
        suspect = Metered(model(served.url), batch=4)
        found = suspect.ask(PROBES)
    assert found.status.tolist() == [Status.OK] * 4 + [Status.INVALID] * 4 + [Status.OK] * 2
    assert suspect.retried == 0, "nothing is gained by asking again"
    assert np.isnan(found.scores[4:8]).all()


def test_only_unreadable_answers_are_still_answers():
    found = asked(lambda call, sent: reply(b"nonsense"))
    assert found.status.tolist() == [Status.INVALID] * 10 and found.scores is None


@pytest.mark.parametrize("pair", ["cow", "cat", None, 7])
def test_pairs_with_a_wrong_label_are_invalid(pair):
    row = [{"label": "cat", "score": 0.6}, {"label": pair, "score": 0.3}]
    found = asked(lambda call, sent: reply([row]), PROBES.take([0]), response={"top": "", "classes": NAMES})
    assert found.status.tolist() == [Status.INVALID]
    nothing = asked(lambda call, sent: reply([[]]), PROBES.take([0]), response={"top": "", "classes": NAMES})
    assert nothing.status.tolist() == [Status.INVALID]


def test_a_huge_answer_is_not_read_to_its_end():
    found = asked(lambda call, sent: reply(b" " * (17 * 2**20)), PROBES.take([0]))
    assert found.status.tolist() == [Status.INVALID]


def test_a_compressed_answer_was_not_asked_for():
    import gzip

    packed = gzip.compress(b'{"predictions": [{"p": [0.2, 0.3, 0.5]}]}')
    with serving(lambda call, sent: reply(packed, Content_Encoding="gzip")) as served:
        assert model(served.url).ask(PROBES.take([0])).status.tolist() == [Status.INVALID]
        assert served.received[0][0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("batch", [10, 5])
def test_a_change_of_classes_is_one_sentence(batch):
    def act(call, sent):
        body = json.loads(scores(call, sent)[2])
        if call == 1 or batch == 10:
            body["predictions"][-1]["p"].append(0.0)
        return reply(body)

    with pytest.raises(ModelError, match=r"got \[3, 4\]: a model must score the same classes every time") as caught:
        asked(act, batch=batch)
    assert not isinstance(caught.value, AnswerError)


def test_named_classes_fix_their_number():
    with pytest.raises(ModelError, match=r"got \[2, 3\]"):
        asked(scores, response={"scores": "predictions.*.p", "classes": ("cat", "dog")})


# --- the transport


FAILURES = {
    "429": lambda call, sent: reply({}, 429),
    "408": lambda call, sent: reply({}, 408),
    "500": lambda call, sent: reply(b"<html>", 500),
    "503": lambda call, sent: reply({}, 503, Retry_After="0"),
    "hang up": lambda call, sent: None,
    "cut": lambda call, sent: reply(b"{", Content_Length="100", Connection="close"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_of_the_transport_is_asked_again(name):
    def act(call, sent):
        return FAILURES[name](call, sent) if call % 2 == 0 else scores(call, sent)

    with serving(act) as served:
        suspect = Metered(model(served.url, timeout=0.5), batch=5, wait=0)
        np.testing.assert_array_equal(suspect.ask(PROBES).labels, ANSWERS.labels)
    assert (suspect.sent, suspect.retried) == (20, 10)


def test_a_slow_service_times_out_and_is_asked_again():
    def act(call, sent):
        if call == 0:
            served.gone.wait(5)
        return scores(call, sent)

    with serving(act) as served:
        suspect = Metered(model(served.url, timeout=0.1), wait=0)
        np.testing.assert_array_equal(suspect.ask(PROBES).labels, ANSWERS.labels)
        assert suspect.retried == 10


def test_an_answer_in_drops_is_no_answer():
    """Every drop comes in time, the whole never does."""
    with serving() as served:
        served.chunk, served.drip = 1, 0.02
        with pytest.raises(AnswerError, match=r"got no complete answer in 0\.2 s"):
            model(served.url, timeout=0.2).ask(PROBES)


def test_what_keeps_failing_is_failed_and_nothing_is_ever_a_verdict():
    def act(call, sent):
        return reply({}, 503) if sent["instances"][0][0] > 0.5 else scores(call, sent)

    with serving(act) as served:
        found = Metered(model(served.url), batch=1, wait=0).ask(PROBES)
    np.testing.assert_array_equal(found.status == Status.FAILED, PROBES.array[:, 0] > 0.5)
    with pytest.raises(AnswerError, match="got no connection") as caught:
        Metered(model(served.url), wait=0).ask(PROBES)
    assert "\n" not in str(caught.value)


def test_what_arrived_before_a_failure_is_not_sent_again():
    def act(call, sent):
        return reply({}, 500) if call == 3 else scores(call, sent)

    with serving(act) as served:
        suspect = model(served.url, batch=2)
        with pytest.raises(AnswerError, match="status 500 Internal Server Error"):
            suspect.ask(PROBES)
        np.testing.assert_allclose(suspect.ask(PROBES).scores, ANSWERS.scores, atol=1e-6)
        assert len(served.received) == 6
        suspect.ask(PROBES)
        assert len(served.received) == 11, "a question that was answered is a new question the next time"


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (400, "check the request"),
        (401, "environment variables"),
        (403, "environment"),
        (404, "check the url"),
        (413, "batch"),
    ],
)
def test_a_refusal_of_the_service_ends_at_once(status, remedy):
    with serving(lambda call, sent: reply({"echo": "s3cret"}, status)) as served:
        with pytest.raises(ModelError, match=rf"got status {status} .*{remedy}") as caught:
            Metered(model(served.url), wait=0).ask(PROBES)
        assert len(served.received) == 1 and "s3cret" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status):
    with serving() as other, serving(lambda call, sent: reply({}, status, Location=other.url)) as served:
        with pytest.raises(ModelError, match=f"got status {status} .*redirects are never followed"):
            model(served.url).ask(PROBES)
        assert not other.received


def self_signed(folder):
    """A key and a certificate for 127.0.0.1 that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    there = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(there, critical=False).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(pem, plain, serialization.NoEncryption())
    (folder / "both.pem").write_bytes(secret + certificate.public_bytes(pem))
    return folder / "both.pem"


def test_certificates_are_checked(tmp_path, monkeypatch):
    """The same service is refused while nobody vouches for it, and answers once somebody does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    with serving() as served:
        served.server.socket = context.wrap_socket(served.server.socket, server_side=True)
        suspect = model(served.url.replace("http:", "https:"), timeout=5.0)
        with pytest.raises(AnswerError, match=r"got no connection \(.*CERTIFICATE_VERIFY_FAILED"):
            suspect.ask(PROBES)
        assert not served.received
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "both.pem"))
        np.testing.assert_array_equal(suspect.ask(PROBES).labels, ANSWERS.labels)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def sleep(self, seconds):
        self.slept.append(round(seconds, 6))
        self.now += seconds

    def pace(self, rate=None):
        return Pace(rate, lambda: self.now, self.sleep)


def test_requests_keep_their_distance():
    clock = Clock()
    pace = clock.pace(rate=4.0)
    for _ in range(3):
        pace.wait()
    clock.now += 0.1
    pace.wait()
    clock.now += 9
    pace.wait()
    assert clock.slept == [0.25, 0.25, 0.15]


@pytest.mark.parametrize(
    ("after", "waits"),
    [
        ("2", [2.0]),
        (None, [0.5]),
        ("soon", [0.5]),
        ("999999999", [60.0]),
        ("Wed, 21 Oct 2015 07:28:00 GMT", []),
        ("-5", [0.5]),
    ],
)
def test_the_service_says_when_to_come_back(after, waits):
    """It is believed for a minute at most; without a word from it the pause of the mapping holds."""
    clock = Clock()

    def act(call, sent):
        return reply({}, 429, **({"Retry_After": after} if after else {})) if call == 0 else scores(call, sent)

    with serving(act) as served:
        inner = model(served.url, pause=0.5)
        inner._pace = clock.pace()
        Metered(inner, wait=0).ask(PROBES)
    assert clock.slept == waits


# --- the mapping file, and secrets


MAPPING = """
url = "{url}"
pause = 0.0
batch = 4

[headers]
Authorization = "Bearer ${{MINUTIA_TEST_TOKEN}}"
X-Tenant = "lab"

[request]
body = {{ instances = "$inputs" }}

[response]
scores = "predictions.*.p"
"""
TOKEN = "sk-very-s3cret-1234"


@pytest.fixture
def mapping(tmp_path, monkeypatch):
    monkeypatch.setenv("MINUTIA_TEST_TOKEN", TOKEN)
    with serving() as served:
        path = tmp_path / "service.toml"
        path.write_text(MAPPING.format(url=served.url))
        yield served, path


def test_a_mapping_file_is_a_suspect(mapping):
    served, path = mapping
    for spec in (f"http:{path}", str(path)):
        found = catalog.model(spec)
        assert found.spec == f"http:{path}" and found.card.recipe == f"POST {served.url}"
        np.testing.assert_allclose(found.ask(PROBES).scores, ANSWERS.scores, atol=1e-6)
    headers = served.received[0][0]
    assert headers["Authorization"] == f"Bearer {TOKEN}" and headers["X-Tenant"] == "lab"


def test_a_secret_is_in_no_card_log_transcript_journal_or_error(mapping, tmp_path, monkeypatch, caplog):
    served, path = mapping
    caplog.set_level(logging.DEBUG)
    with SqliteJournal(tmp_path / "journal") as journal:
        suspect = Metered(open_model(str(path)), journal=journal, transcript=tmp_path / "t.jsonl", wait=0)
        suspect.ask(PROBES)
        served.act = lambda call, sent: reply({"you sent": TOKEN}, 401)
        with pytest.raises(ModelError) as refused:
            suspect.ask(numbered(PROBES.array + 1, {}))
    monkeypatch.setenv("MINUTIA_TEST_TOKEN", f"{TOKEN}\nX-Other: 1")
    with pytest.raises(UsageError, match=r"environment variable MINUTIA_TEST_TOKEN .*, got an unprintable one") as odd:
        open_model(str(path))
    seen = [str(refused.value), str(odd.value), repr(suspect.card), suspect.spec, caplog.text]
    seen += [f.read_bytes().decode("latin-1") for f in tmp_path.iterdir()]
    assert not [text for text in seen if TOKEN in text]


def test_an_absent_variable_is_told_before_anything_is_asked(mapping, monkeypatch):
    served, path = mapping
    monkeypatch.delenv("MINUTIA_TEST_TOKEN")
    with pytest.raises(UsageError, match=r"expected the environment variable MINUTIA_TEST_TOKEN .*, got none: export"):
        open_model(str(path))
    assert not served.received


def test_the_id_is_who_answers_what_not_how_fast(mapping, monkeypatch):
    _, path = mapping
    text, first = path.read_text(), open_model(str(path)).card.id
    monkeypatch.setenv("MINUTIA_TEST_TOKEN", "another")
    assert open_model(str(path)).card.id == first == open_model(str(path)).card.root
    path.write_text(text.replace("batch = 4", "batch = 8\nrate = 99\ntimeout = 3"))
    assert open_model(str(path)).card.id == first
    for old, new in (("/v1/", "/v2/"), ("lab", "other"), ("instances", "inputs"), ("*.p", "*.q")):
        path.write_text(text.replace(old, new))
        assert open_model(str(path)).card.id != first


GOOD = {"url": "https://host/v1", "request": {"body": "$inputs"}, "response": {"labels": ""}}
WRONG = [
    ({"urll": "x"}, r"expected a key of the mapping \(url, method.*got 'urll': did you mean url\?"),
    ({"request": {"body": "$inputs", "encodng": "png"}}, "got 'request.encodng': did you mean encoding"),
    ({"response": {"label": ""}}, "got 'response.label': did you mean labels"),
    ({"response": {}}, "expected one of scores, logits, labels and top in response, got none"),
    ({"response": {"labels": "", "scores": ""}}, "expected one of scores"),
    ({"response": {"top": ""}}, "expected the owner's classes in order as response.classes"),
    ({"response": {"labels": "", "classes": ["a", "a"]}}, "two or more distinct names"),
    ({"request": {"body": {"x": 1}}}, r"expected \$inputs \(a list\) or \$input .* got none"),
    ({"request": {"body": ["$inputs", "$input"]}}, r"expected \$inputs"),
    ({"request": {"body": "$inputs", "item": "x"}}, r"\$input in request.item, got"),
    ({"request": {"body": "a $input"}}, r"expected \$input alone, or with encoding png or raw"),
    ({"request": {"body": "a $inputs", "encoding": "png"}}, r"expected \$input alone"),
    ({"request": {"body": {"x": "$inputs", "y": float("nan")}}}, "request.body that JSON can hold"),
    ({"timeout": 0}, "expected a valid 'timeout'"),
    ({"batch": 0}, "expected a valid 'batch'"),
    ({"rate": -1}, "expected a valid 'rate'"),
    ({"method": "GET"}, "expected a valid 'method'"),
    ({"url": "ftp://host/x"}, "expected an address such as https://host/path"),
    ({"url": "https://me:s3cret@host/x"}, "put secrets into headers"),
    ({"url": "https://[::1/x"}, "expected an address"),
    ({"url": "https://host:99999/"}, "expected an address"),
    ({"headers": {"Authorization": "Bearer s3cret"}}, "header 'Authorization' from an environment variable"),
    ({"headers": {"X-Api-Key": "s3cret"}}, "header 'X-Api-Key' from an environment variable"),
    ({"headers": {"A": "s3cret\nB: c"}}, "printable ASCII in the header 'A'"),
    ({"headers": {"A": 5}}, "expected a valid 'headers.A'"),
    ({"headers": {"A b": "c"}}, "header 'A b'"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG)
def test_a_wrong_mapping_is_one_sentence_without_what_may_be_secret(change, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        service({**GOOD, **change})
    assert "\n" not in str(caught.value) and "s3cret" not in str(caught.value)


def test_what_is_missing_is_named():
    with pytest.raises(UsageError, match="expected 'url' in the mapping, found none: add it"):
        service({name: GOOD[name] for name in ("request", "response")})


@pytest.mark.parametrize(
    ("data", "sentence"),
    [(b"url = ", "expected TOML"), (b"\xff", "expected TOML"), (b"a = " + b"[" * 9999, "expected TOML")],
)
def test_a_file_that_is_no_mapping(data, sentence, tmp_path):
    path = tmp_path / "m.toml"
    path.write_bytes(data)
    with pytest.raises(FileError, match=sentence):
        load_service(path)


def test_other_specs_are_one_sentence(tmp_path):
    with pytest.raises(FileError, match="expected a mapping file at"):
        catalog.model("http:absent.toml")
    with pytest.raises(UsageError, match=r"expected http:mapping.toml, got the address http://host/v1:"):
        catalog.model("http://host/v1?key=s3cret")


# --- a verdict


@pytest.fixture(scope="module")
def case():
    """A fingerprint of a toy model, a null of a hundred others, and a stranger."""
    rng = np.random.default_rng(3)
    inputs = rng.random((200, 4), dtype=np.float32)
    material = Material(
        inputs, np.zeros(200, int), unrelated=[ToyClassifier.fresh((4, 6, 3), s) for s in range(20, 40)]
    )
    fp = catalog.method("ipguard(probes=40)").extract(TOY, material)
    others = [ToyClassifier.fresh((4, 6, 3), seed) for seed in range(100, 200)]
    seen = [Observation(m.card, fp.probes.ids, m.ask(fp.probes), fp.probes.digest) for m in others[1:]]
    return fp, Null("unrelated", tuple(seen)), others[0]


def test_a_served_copy_is_a_match_and_a_stranger_is_none(case):
    fp, null, stranger = case
    with serving() as served:
        direct, behind = api.verify(fp, TOY, null), api.verify(fp, model(served.url), null)
        assert behind.outcome == direct.outcome == "match"
        assert (behind.p_value, behind.score, behind.asked) == (direct.p_value, direct.score, direct.asked)
        served.act = lambda call, sent: scores(call, sent, stranger)
        assert api.verify(fp, model(served.url), null).outcome != "match"


def test_answering_nonsense_instead_of_the_truth_rules_nothing_out(case):
    fp, null, _ = case

    def act(call, sent):
        return scores(call, sent) if call % 3 else reply(b"Internal nonsense")

    with serving(act) as served:
        verdict = api.verify(fp, model(served.url, batch=1), null, early=False)
    assert "invalid-answers" in verdict.flags and verdict.outcome != "no-match"


def test_a_service_that_dies_midway_is_asked_the_rest_only(case, tmp_path):
    """Nothing that was answered before the kill is asked again after it, and the verdict is that of one go."""
    fp, null, _ = case
    method, first = catalog.method(fp.method), fp.schedule[0]

    def verdict(served, journal):
        return method.verify(fp, Metered(model(served.url), journal=journal, wait=0), null, early=False)

    with SqliteJournal(tmp_path / "journal") as journal:
        with serving() as served:
            Metered(model(served.url), journal=journal).ask(fp.probes.take(range(first)))
        cut = verdict(served, journal)
        assert cut.outcome == "inconclusive" and cut.answered == first and "too-few-answers" in cut.flags
    with SqliteJournal(tmp_path / "journal") as journal, serving(port=served.server.server_port) as again:
        found = verdict(again, journal)
        inputs = [tuple(row) for _, sent in again.received for row in sent["instances"]]
        assert found.outcome == "match" and found.answered == len(fp.probes)
        assert len(inputs) == len(set(inputs)) == len(fp.probes) - first
        assert not {tuple(row) for row in fp.probes.array[:first].tolist()} & set(inputs)
        assert verdict(again, None).plain() == found.plain()


def test_the_example_of_the_documentation_works(case, tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "how-to" / "ask-an-http-service.md"
    text = re.search(r"```toml title=\"service.toml\"\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[1]
    monkeypatch.setenv("CLASSIFIER_TOKEN", TOKEN)

    def act(call, sent):
        rows = TOY.ask(numbered(np.array(sent["instances"]), {})).scores.tolist()
        return reply({"predictions": [{"probabilities": row} for row in rows]})

    with serving(act) as served:
        assert "https://models.example.org/v1/classify" in text
        (tmp_path / "service.toml").write_text(text.replace("https://models.example.org/v1/classify", served.url))
        suspect = catalog.model(str(tmp_path / "service.toml"))
        suspect._pace = Clock().pace()
        assert api.verify(case[0], suspect, case[1]).outcome == "match"
        assert served.received[0][0]["Authorization"] == f"Bearer {TOKEN}"
    others = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(others) >= 3
    for part in others:
        service({"url": "https://host", **GOOD, **tomllib.loads(part)})
