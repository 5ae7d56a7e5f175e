"""Transcripts: the round trip, finding answers, and files that nobody should believe."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minutia.core.access import Access
from minutia.core.answers import Answers, Observation, Status
from minutia.core.errors import FileError, ModelError, ProtocolError, UsageError
from minutia.core.model import Model, ModelCard
from minutia.core.probe import ProbeSet, numbered
from minutia.models.replay import MAX_LINE_BYTES, Transcript, open_model, read_transcript

CARD = ModelCard("model-id", "root-id")
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
LINE = {"model": "m", "prompt_id": "p", "prompt": "Hi", "response": "Hello", "repeat": 0, "sampling": {}}


def same(first, second):
    """Equal in every column, NaN included."""
    assert first.arrays().keys() == second.arrays().keys() and first.text == second.text
    for name, column in first.arrays().items():
        np.testing.assert_array_equal(column, second.arrays()[name], err_msg=name)
        assert column.dtype == second.arrays()[name].dtype, name


@st.composite
def answers(draw):
    """Any answers an adapter may return; lost rows hold nothing, and at least one row arrived."""
    count = draw(st.integers(1, 5))
    status = np.array(draw(st.lists(st.sampled_from(list(Status)), min_size=count, max_size=count)), np.uint8)
    status[draw(st.integers(0, count - 1))] = draw(st.sampled_from([Status.OK, Status.REFUSED, Status.INVALID]))
    lost = status == Status.FAILED
    labels = np.array(draw(st.lists(st.integers(-1, 9), min_size=count, max_size=count)), np.int64)
    columns = {}
    for name in draw(st.sets(st.sampled_from(["scores", "logits"]))):
        rows = st.lists(FLOATS, min_size=3, max_size=3)
        column = np.array(draw(st.lists(rows, min_size=count, max_size=count)), np.float32)
        # NaN has many bit patterns; a transcript keeps one.
        columns[name] = np.where(lost[:, None] | np.isnan(column), np.float32(np.nan), column)
    if draw(st.booleans()):
        texts = draw(st.lists(st.text(max_size=9), min_size=count, max_size=count))
        columns["text"] = tuple("" if gone else t for gone, t in zip(lost, texts, strict=True))
    if draw(st.booleans()):
        usage = draw(st.lists(st.integers(0, 10**6), min_size=count, max_size=count))
        columns["usage"] = np.where(lost, 0, usage)
    return Answers(status, np.where(lost, -1, labels), **columns)


@given(answers(), st.booleans(), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_replay_of_what_was_written_is_what_was_answered(given_answers, as_text, repeat):
    content = tuple(f"question {i}" for i in range(9)) if as_text else np.arange(18.0).reshape(9, 2)
    ids = tuple("abcdefghi")
    probes = ProbeSet(ids, content, {"sampling": {"temperature": 0.5, "stop": ("x",)}}, repeat)
    probes = probes.take(range(len(given_answers)))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        writer = Transcript(path)
        assert writer.add(CARD, probes, given_answers) == np.sum(given_answers.status != Status.FAILED)
        assert writer.add(CARD, probes, given_answers, "2030-01-01") == 0
        assert Transcript(path).add(CARD, probes, given_answers) == 0
        model = open_model(str(path))
    found = model.ask(probes)
    same(found, given_answers)
    assert (model.card.id, model.card.root) == (CARD.id, CARD.root)
    seen = Observation(model.card, probes.ids, found, probes.digest)
    assert seen.digest == Observation(CARD, probes.ids, given_answers, probes.digest).digest


def write(path, *lines):
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return str(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.jsonl"


@pytest.mark.parametrize(
    ("response", "label", "text", "status"),
    [
        (3, 3, None, Status.OK),
        ({"label": 3}, 3, None, Status.OK),
        ({"scores": [0.1, 0.7, 0.2]}, 1, None, Status.OK),
        ({"logits": [5, 0, 0]}, 0, None, Status.OK),
        ({"label": 2, "scores": [0.1, 0.7, 0.2]}, 2, None, Status.OK),
        ({"scores": ["nan", 0.5]}, None, None, Status.INVALID),
        ({"scores": [float("nan"), 0.5]}, None, None, Status.INVALID),
        ("a cat", None, "a cat", Status.OK),
        ("", None, "", Status.OK),
        (-1, None, None, Status.INVALID),
        (2**60, None, None, Status.INVALID),
        ({"label": None}, None, None, Status.INVALID),
    ],
)
def test_every_spelling_of_a_response(path, response, label, text, status):
    model = open_model(write(path, {**LINE, "response": response}))
    found = model.ask(ProbeSet(("p",), ("Hi",)))[0]
    assert (found.label, found.text, found.status) == (label, text, status)


def test_status_is_optional_and_wins(path):
    refused = {**LINE, "prompt_id": "q", "prompt": "Ho", "response": None, "status": "refused"}
    model = open_model(write(path, LINE, refused))
    found = model.ask(ProbeSet(("p", "q", "r"), ("Hi", "Ho", "Ha")))
    assert found.status.tolist() == [Status.OK, Status.REFUSED, Status.FAILED]
    assert found.text == ("Hello", "", "")
    assert isinstance(model, Model) and model.access == Access.TEXT


def test_access_is_what_every_answer_holds(path):
    scores = {**LINE, "response": {"scores": [0, 1]}, "usage": 3}
    assert open_model(write(path, scores)).access == Access.LABELS | Access.TOP_K | Access.SCORES | Access.USAGE
    label = {**LINE, "prompt_id": "q", "response": 1}
    model = open_model(write(path, scores, label))
    assert model.access == Access.LABELS and model.ask(ProbeSet(("p",), ("Hi",))).labels.tolist() == [1]


def test_rows_are_found_by_content_whatever_they_are_called(path):
    probes = numbered(np.arange(6.0).reshape(3, 2), {"channel": "array"})
    Transcript(path).add(CARD, probes, Answers.from_labels(np.array([4, 5, 6])))
    renamed = ProbeSet(("x", "p000", "z"), probes.array[::-1], probes.protocol)
    assert open_model(str(path)).ask(renamed).labels.tolist() == [6, 5, 4]


@pytest.mark.parametrize(
    "change",
    [{"content": np.ones((3, 2))}, {"protocol": {"channel": "jpeg"}}],
)
def test_another_experiment_under_the_same_id_is_refused(path, change):
    probes = numbered(np.arange(6.0).reshape(3, 2), {"channel": "array"})
    Transcript(path).add(CARD, probes, Answers.from_labels(np.array([4, 5, 6])))
    other = ProbeSet(probes.ids, change.get("content", probes.array), change.get("protocol", probes.protocol))
    with pytest.raises(ProtocolError, match="made with other probes or another protocol"):
        open_model(str(path)).ask(other)


def test_another_repeat_was_not_asked(path):
    model = open_model(write(path, LINE))
    assert model.ask(ProbeSet(("p",), ("Hi",), {}, repeat=1)).status.tolist() == [Status.FAILED]


def test_a_foreign_prompt_is_trusted_by_its_id(path):
    model = open_model(write(path, {**LINE, "prompt": "image 17", "response": 2}))
    assert model.ask(ProbeSet(("p",), np.zeros((1, 2)))).labels.tolist() == [2]


def test_another_text_under_the_same_id_is_refused(path):
    with pytest.raises(ProtocolError, match="got one to 'Hi'"):
        open_model(write(path, LINE)).ask(ProbeSet(("p",), ("Bye",)))


def test_a_secret_text_may_be_recorded_by_its_digest(path):
    probes = ProbeSet(("p",), ("my secret",), {"sampling": {"temperature": 0}})
    model = open_model(write(path, {**LINE, "prompt_id": "x", "prompt": probes.content_id(0)}))
    assert model.ask(probes).text == ("Hello",)


def test_chat_messages_are_prompts(path):
    chat = ({"role": "user", "content": "Hi"},)
    model = open_model(write(path, {**LINE, "prompt": [{"content": "Hi", "role": "user"}]}))
    assert model.ask(ProbeSet(("p",), (chat,))).text == ("Hello",)


def test_other_sampling_is_another_experiment(path):
    model = open_model(write(path, {**LINE, "sampling": {"temperature": 1}}, {**LINE, "prompt_id": "q"}))
    ask = {"sampling": {"temperature": 0}}
    assert model.ask(ProbeSet(("q",), ("Hi",), ask)).text == ("Hello",), "no sampling was recorded for q"
    alone = open_model(write(path, {**LINE, "sampling": {"temperature": 1}}))
    with pytest.raises(ProtocolError, match="got one under"):
        alone.ask(ProbeSet(("p",), ("Hi",), ask))


def test_samples_of_one_question_are_told_apart_by_id(path):
    lines = [{**LINE, "prompt_id": f"p{i}", "response": f"Hello {i}"} for i in range(3)]
    model = open_model(write(path, *lines))
    assert model.ask(ProbeSet(("p2", "p0"), ("Hi", "Hi"))).text == ("Hello 2", "Hello 0")
    with pytest.raises(ProtocolError, match="3 different ones"):
        model.ask(ProbeSet(("other",), ("Hi",)))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "expected one JSON object in line 2 of"),
        ("[1]", "got a list"),
        ("\xff", "line 2"),
        ("[" * 200_000, "line 2"),
        ('{"model": ' + "9" * 5000 + "}", "line 2"),
        ({k: v for k, v in LINE.items() if k != "prompt_id"}, "the field 'prompt_id'"),
        ({k: v for k, v in LINE.items() if k != "response"}, "the field 'response'"),
        ({**LINE, "model": 3}, "the field 'model'"),
        ({**LINE, "prompt": {"a": 1}}, "as prompt"),
        ({**LINE, "repeat": -1}, "as repeat"),
        ({**LINE, "repeat": True}, "as repeat"),
        ({**LINE, "sampling": 3}, "as sampling"),
        ({**LINE, "root": 3}, "as root"),
        ({**LINE, "response": None}, "a response, or one of the status"),
        ({**LINE, "status": "fine"}, "ok, refused, failed"),
        ({**LINE, "response": True}, "as the response"),
        ({**LINE, "response": 1.5}, "as the response"),
        ({**LINE, "response": [1, 2]}, "as the response"),
        ({**LINE, "response": {"answer": 1}}, "as the response"),
        ({**LINE, "response": {"scores": [1]}}, "two or more numbers as scores"),
        ({**LINE, "response": {"scores": [1, "x"]}}, "line 2"),
        ({**LINE, "response": {"scores": [1, [2]]}}, "expected numbers in line 2"),
        ({**LINE, "response": {"scores": [1, 10**400]}}, "line 2"),
        ({**LINE, "response": {"label": "cat"}}, "a whole number as label"),
        ({**LINE, "response": {"text": 3}}, "a string as text"),
        ({**LINE, "usage": "many"}, "line 2"),
        ({**LINE, "response": "Other"}, "expected one answer per prompt and repeat"),
        ({**LINE, "response": "x" * MAX_LINE_BYTES}, f"at most {MAX_LINE_BYTES} bytes in line 2"),
    ],
    ids=lambda value: str(value)[-40:] if not isinstance(value, str) else "",
)
def test_wrong_lines_are_named_by_their_number(path, line, words):
    write(path, LINE, line)
    with pytest.raises(FileError, match=words) as caught:
        open_model(str(path))
    assert "line 2 of" in str(caught.value) and len(str(caught.value)) < 600


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_model_or_one_of_our_errors(data):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        path.write_bytes(data)
        with pytest.raises((FileError, ModelError)):
            open_model(str(path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["label", "scores", "text"]), x, max_size=3),
    max_leaves=5,
)


@given(
    st.fixed_dictionaries({**{k: st.just(v) for k, v in LINE.items()}}, optional={"usage": JSON, "root": JSON}), JSON
)
@settings(max_examples=200, deadline=None)
def test_any_response_is_read_or_refused_with_its_line(line, response):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        write(path, {**line, "response": response})
        try:
            open_model(str(path)).ask(ProbeSet(("p",), ("Hi",)))
        except FileError as error:
            assert "line 1 of" in str(error)


def test_repeated_lines_with_the_same_answer_are_harmless(path):
    nan = {**LINE, "prompt_id": "q", "response": {"scores": ["nan", 1]}}
    assert len(list(read_transcript(Path(write(path, LINE, "", LINE, nan, nan))))) == 4


def test_half_surrogates_of_a_hostile_api_become_readable(path):
    line = {"model": "m\ud800", "prompt_id": "p\udfff", "prompt": "Hi", "response": "\ud800 and \ud83d\ude00"}
    model = open_model(write(path, line))
    probes = ProbeSet(("p",), ("Hi",))
    assert model.ask(probes).text == ("\ufffd and \U0001f600",)
    assert Observation(model.card, probes.ids, model.ask(probes), probes.digest).digest


def test_one_of_several_models_is_chosen_by_name(path):
    write(path, LINE, {**LINE, "model": "n", "response": "Bonjour"})
    assert open_model(f"{path}?model=n").ask(ProbeSet(("p",), ("Hi",))).text == ("Bonjour",)
    with pytest.raises(UsageError, match=r"got 2 \(m, n\): choose one with \?model=NAME"):
        open_model(str(path))
    with pytest.raises(ModelError, match="got none"):
        open_model(f"{path}?model=x")


def test_classes_must_be_the_same_for_all_answers(path):
    lines = [{**LINE, "prompt_id": str(i), "prompt": str(i), "response": {"scores": [0] * (2 + i)}} for i in (0, 1)]
    with pytest.raises(ModelError, match="the same classes"):
        open_model(write(path, *lines)).ask(ProbeSet(("0", "1"), ("0", "1")))


def test_an_absent_transcript_is_a_file_error(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        open_model(str(tmp_path / "absent.jsonl"))
    with pytest.raises(FileError, match="choose another place"):
        Transcript(tmp_path / "absent" / "x.jsonl").add(CARD, ProbeSet(("a",), ("b",)), Answers.from_labels(np.ones(1)))


def test_a_transcript_is_the_owners_alone_and_only_grows(path):
    probes = numbered(np.arange(6.0).reshape(3, 2), {})
    for i in range(3):
        before = path.read_bytes() if path.exists() else b""
        Transcript(path).add(CARD, probes.take([i]), Answers.from_labels(np.array([i])))
        assert path.read_bytes().startswith(before) and path.read_bytes().count(b"\n") == i + 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_without_a_last_newline_is_continued_on_a_new_line(path):
    path.write_text(json.dumps(LINE))
    Transcript(path).add(ModelCard("m", "m"), ProbeSet(("q",), ("Ho",)), Answers.without(1, Status.REFUSED))
    assert len(list(read_transcript(path))) == 2


def test_an_answer_without_bound_is_refused(path):
    endless = Answers(np.zeros(1, np.uint8), np.full(1, -1), text=("x" * MAX_LINE_BYTES,))
    with pytest.raises(ModelError, match="ask for fewer tokens"):
        Transcript(path).add(CARD, ProbeSet(("a",), ("b",)), endless)
