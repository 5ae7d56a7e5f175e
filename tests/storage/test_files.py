"""Fingerprint and null files: they come back as they went, and any change of any byte is one clear sentence."""

import dataclasses
import json
import os
import pickle
import random
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from handmade import EVERY_KIND, fingerprint, matching, null
from minutia.core.answers import Answers, Observation
from minutia.core.errors import FileError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.models.toy import ToyClassifier
from minutia.storage.files import (
    fingerprint_bytes,
    load_fingerprint,
    load_null,
    null_bytes,
    save_fingerprint,
    save_null,
    write_atomically,
)

FP = dataclasses.replace(
    fingerprint(12, looks=(6, 12), controls={"prune": [9, 8], "noise": [7]}),
    arrays={"mean": np.arange(3.0), "gap": np.float32(0.25)},
)
SCORED = tuple(
    Observation(ModelCard(f"toy {i}", f"toy {i}"), FP.probes.ids, ToyClassifier.fresh((4, 5), i).ask(FP.probes), d)
    for i, d in enumerate([FP.probes.digest] * 3)
)
NULL = dataclasses.replace(null(FP, [1, 2, 3]), observations=SCORED, source="three toys, März")
KINDS = {"fingerprint": (FP, fingerprint_bytes, load_fingerprint), "null": (NULL, null_bytes, load_null)}
each_kind = pytest.mark.parametrize("kind", KINDS)


def sentence(error):
    """What a user reads: one line that says what was expected and what was found."""
    text = str(error.value)
    assert (text.startswith("expected ") and ", got " in text) or "found nothing" in text, text
    assert "\n" not in text and len(text) < 600, text
    return text


def refused(load, path, data):
    path.write_bytes(data)
    with pytest.raises(FileError) as error:
        load(path)
    return sentence(error)


# --- round trips


@each_kind
def test_a_value_comes_back(kind, tmp_path):
    value, to_bytes, load = KINDS[kind]
    (tmp_path / "file").write_bytes(to_bytes(value))
    again = load(tmp_path / "file")
    assert again.digest == value.digest and to_bytes(again) == to_bytes(value)


def test_a_fingerprint_comes_back_field_by_field(tmp_path):
    save_fingerprint(FP, tmp_path / "fp")
    again = load_fingerprint(tmp_path / "fp")
    for name in ("method", "question", "owner", "spent", "schedule", "threats", "binds", "seed", "format"):
        assert getattr(again, name) == getattr(FP, name), name
    assert again.probes.digest == FP.probes.digest and list(again.controls) == ["owner", "noise", "prune"]
    assert {k: [o.digest for o in v] for k, v in again.controls.items()} == {
        k: [o.digest for o in v] for k, v in FP.controls.items()
    }
    assert again.arrays["gap"].shape == () and again.arrays["gap"] == np.float32(0.25)
    np.testing.assert_array_equal(again.arrays["mean"], FP.arrays["mean"])


def test_a_null_comes_back_with_its_words_and_cards(tmp_path):
    cards = [
        ModelCard("a", "root", 'recipe "quoted" ü', ("parent",), {"accuracy": 0.1 + 0.2}),
        ModelCard("b", "root", fidelity={"loss": float(np.float32(1e-30))}),
    ]
    seen = tuple(dataclasses.replace(o, subject=c, occasion="2026-01-01") for o, c in zip(SCORED, cards, strict=False))
    save_null(Null("unrelated", seen, "a rung", "a source\nof two lines"), tmp_path / "null")
    again = load_null(tmp_path / "null")
    assert (again.rung, again.source, again.m) == ("a rung", "a source\nof two lines", 1)
    assert [o.subject for o in again.observations] == cards
    assert [o.occasion for o in again.observations] == ["2026-01-01"] * 2


@pytest.mark.parametrize(
    "answers",
    [
        Answers.from_labels(np.arange(12) % 5),
        Answers.from_scores(np.eye(7, dtype=np.float32)[np.arange(12) % 7]),
        Answers.from_scores(np.where(np.arange(60).reshape(12, 5) == 7, np.nan, 0.2)),
        dataclasses.replace(Answers.from_labels(np.arange(12)), usage=np.arange(12)),
        dataclasses.replace(Answers.from_labels(np.arange(12)), usage=np.arange(12) / 2),
    ],
    ids=["labels", "other classes", "nan", "usage", "usage of another type"],
)
def test_models_that_answer_differently_are_kept_in_one_null(answers, tmp_path):
    """A null may hold a model that gives labels only beside one that gives scores."""
    other = Observation(ModelCard("other", "other"), FP.probes.ids, answers, FP.probes.digest)
    mixed = dataclasses.replace(NULL, observations=(*SCORED, other))
    save_null(mixed, tmp_path / "null")
    again = load_null(tmp_path / "null")
    assert again.digest == mixed.digest
    assert again.observations[-1].answers.arrays().keys() == answers.arrays().keys()
    assert again.observations[-1].answers.status.dtype == np.uint8


def test_no_models_at_all_come_back(tmp_path):
    save_null(Null.none(), tmp_path / "none")
    assert load_null(tmp_path / "none").digest == Null.none().digest
    bare = dataclasses.replace(FP, reference=(), controls={"owner": FP.controls["owner"]}, arrays={})
    save_fingerprint(bare, tmp_path / "bare")
    assert load_fingerprint(tmp_path / "bare").digest == bare.digest


def test_texts_are_refused_instead_of_lost(tmp_path):
    said = dataclasses.replace(SCORED[0].answers, text=("a",) * 12)
    talking = dataclasses.replace(NULL, observations=(dataclasses.replace(SCORED[0], answers=said),))
    with pytest.raises(UsageError, match="got texts"):
        save_null(talking, tmp_path / "null")
    assert not list(tmp_path.iterdir())


@given(
    contents=hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))),
    seed=st.integers(0, 2**63),
    protocol=st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.integers()), max_size=2),
    source=st.text(),
)
@settings(max_examples=40)
def test_whatever_is_saved_comes_back(contents, seed, protocol, source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trip")
    probes = numbered(contents, protocol)
    again = matching(probes, "owner", 0)
    fp = dataclasses.replace(
        FP,
        probes=probes,
        answers=again.answers,
        controls={"owner": (again,)},
        reference=(),
        schedule=(len(probes),),
        seed=seed,
    )
    save_fingerprint(fp, folder / "fp")
    assert load_fingerprint(folder / "fp").digest == fp.digest
    save_null(null(fp, [0], rung=source), folder / "null")
    assert load_null(folder / "null").rung == source


def test_files_are_the_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        save_fingerprint(FP, tmp_path / "fp")
        save_null(NULL, tmp_path / "null")
    finally:
        os.umask(before)
    for name in ("fp", "null"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


# --- mutate, then read


@each_kind
def test_every_truncation_is_noticed(kind, tmp_path):
    value, to_bytes, load = KINDS[kind]
    data = to_bytes(value)
    cuts = {*range(64), *range(64, len(data), 97), *range(len(data) - 40, len(data))}
    for cut in sorted(cuts):
        refused(load, tmp_path / "file", data[:cut])


@each_kind
def test_every_flipped_byte_is_noticed(kind, tmp_path):
    """400 places chosen by a fixed seed, and every byte of the first 300: header length, names, digests."""
    value, to_bytes, load = KINDS[kind]
    data = to_bytes(value)
    draw = random.Random(1)
    places = {*range(300), *(draw.randrange(len(data)) for _ in range(400))}
    for place in sorted(places):
        changed = bytearray(data)
        changed[place] ^= draw.choice([0x01, 0x20, 0x80, 0xFF])
        refused(load, tmp_path / "file", bytes(changed))


@pytest.mark.slow
@each_kind
def test_every_byte_and_every_bit_is_noticed(kind, tmp_path):
    value, to_bytes, load = KINDS[kind]
    data = to_bytes(value)
    for place in range(len(data)):
        for bit in (1 << place % 8,):
            changed = bytearray(data)
            changed[place] ^= bit
            refused(load, tmp_path / "file", bytes(changed))


@each_kind
@pytest.mark.parametrize("extra", [b"\0", b" ", b"more"])
def test_added_bytes_are_noticed(kind, extra, tmp_path):
    value, to_bytes, load = KINDS[kind]
    refused(load, tmp_path / "file", to_bytes(value) + extra)


def repacked(data, change):
    """The same file with a changed ``minutia`` entry or other arrays."""
    size = int.from_bytes(data[:8], "little")
    meta = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["minutia"])
    arrays = dict(load_tensors(data))
    found = change(meta, arrays)
    text = found if isinstance(found, str) else json.dumps(meta, sort_keys=True, separators=(",", ":"))
    return bytes(save_tensors(arrays, metadata={"minutia": text}))


def _paths(value, prefix=()):
    """Every place in nested plain data."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*prefix, name)
            yield from _paths(inner, (*prefix, name))


def _at(meta, path):
    for name in path[:-1]:
        meta = meta[name]
    return meta


@each_kind
def test_every_missing_or_changed_field_is_noticed(kind, tmp_path):
    value, to_bytes, load = KINDS[kind]
    data = to_bytes(value)
    size = int.from_bytes(data[:8], "little")
    meta = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["minutia"])
    for path in _paths(meta):
        refused(load, tmp_path / "file", repacked(data, lambda m, a, p=path: _at(m, p).pop(p[-1]) and None))
        for wrong in (None, 7, "x", [], {}, [[]], -1, True, 10**400, {"a": {"b": []}}):
            if _at(meta, path)[path[-1]] == wrong:
                continue
            refused(load, tmp_path / "file", repacked(data, lambda m, a, p=path, w=wrong: _at(m, p).update({p[-1]: w})))


@each_kind
def test_every_missing_or_changed_array_is_noticed(kind, tmp_path):
    value, to_bytes, load = KINDS[kind]
    data = to_bytes(value)
    for name, array in load_tensors(data).items():
        for wrong in (None, array.reshape(-1)[:-1], array.astype(np.float64), array[None], np.zeros(0, np.float32)):
            if wrong is not None and wrong.dtype == array.dtype and wrong.shape == array.shape:
                continue

            def change(meta, arrays, name=name, wrong=wrong):
                arrays.pop(name)
                if wrong is not None:
                    arrays[name] = np.ascontiguousarray(wrong)

            refused(load, tmp_path / "file", repacked(data, change))
    refused(load, tmp_path / "file", repacked(data, lambda m, arrays: arrays.update(more=np.zeros(2))))


@each_kind
def test_another_spelling_of_the_same_header_is_noticed(kind, tmp_path):
    """Reordered keys or added spaces hold the same value, but the file has one canonical form."""
    value, to_bytes, load = KINDS[kind]
    refused(load, tmp_path / "file", repacked(to_bytes(value), lambda m, a: json.dumps(m, sort_keys=True)))
    refused(load, tmp_path / "file", repacked(to_bytes(value), lambda m, a: json.dumps(dict(reversed(m.items())))))


def test_a_consistent_file_with_nonsense_in_it_is_refused(tmp_path):
    """Whoever can write files can also recompute digests: what cannot be a fingerprint is refused all the same."""
    for changes in (
        {"schedule": ()},
        {"schedule": (0, 12)},
        {"schedule": (12, 6)},
        {"schedule": (6,)},
        {"schedule": (6, 13)},
        {"controls": {"owner": ()}},
        {"answers": FP.answers.take(range(11))},
        {"controls": {"owner": FP.controls["owner"], "prune": (dataclasses.replace(SCORED[0], protocol="x"),)}},
        {"reference": (SCORED[0].only(FP.probes.ids[:3]),)},
    ):
        with pytest.raises((FileError, UsageError), match="expected"):
            (tmp_path / "fp").write_bytes(fingerprint_bytes(dataclasses.replace(FP, **changes)))
            load_fingerprint(tmp_path / "fp")


FOREIGN = {
    "empty": b"",
    "text": b"hello, this is no fingerprint",
    "pickle": pickle.dumps({"digest": "sha256:0"}),
    "zip": b"PK\x03\x04" + bytes(60),
    "onnx": b"\x08\x07\x12\x07pytorch",
    "json": b'{"kind": "fingerprint"}',
    "huge header": (2**62).to_bytes(8, "little") + b"{}",
    "largest header": b"\xff" * 8 + b"{}",
    "header longer than the file": (1000).to_bytes(8, "little") + b"{}",
    "zero header": bytes(8),
    "no header": (2).to_bytes(8, "little") + b"{}",
    "broken header": (4).to_bytes(8, "little") + b'{"a"',
    "weights": save_tensors({"w": np.zeros(3, np.float32)}),
    "weights with a card": save_tensors({"w": np.zeros(3, np.float32)}, metadata={"format": "pt"}),
    "not ours": save_tensors({}, metadata={"minutia": "[]"}),
    "no json": save_tensors({}, metadata={"minutia": "{"}),
    "number": save_tensors({}, metadata={"minutia": "7"}),
    "no value": save_tensors({}, metadata={"minutia": '{"kind":"null","format":1}'}),
    "deep json": save_tensors({}, metadata={"minutia": "[" * 100_000 + "]" * 100_000}),
    "shallow enough to parse": save_tensors(
        {},
        metadata={
            "minutia": '{"content":"x","digest":"x","format":1,"kind":"null","value":' + "[" * 900 + "]" * 900 + "}"
        },
    ),
    "nan": save_tensors({}, metadata={"minutia": '{"content":"","digest":"","format":1,"kind":"null","value":NaN}'}),
}


@each_kind
@pytest.mark.parametrize("foreign", FOREIGN)
def test_foreign_files_are_refused(kind, foreign, tmp_path):
    refused(KINDS[kind][2], tmp_path / "file", FOREIGN[foreign])


def test_kinds_are_not_mixed_up(tmp_path):
    assert "got a null" in refused(load_fingerprint, tmp_path / "file", null_bytes(NULL))
    assert "got a fingerprint" in refused(load_null, tmp_path / "file", fingerprint_bytes(FP))


def test_another_format_asks_for_another_version(tmp_path):
    data = repacked(null_bytes(NULL), lambda m, a: m.update(format=2))
    assert "upgrade minutia" in refused(load_null, tmp_path / "file", data)


def test_reading_never_runs_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    refused(load_fingerprint, tmp_path / "file", pickle.dumps(Trap()))
    assert not (tmp_path / "trapped").exists()


@each_kind
@pytest.mark.parametrize("where", ["absent", "folder", "x" * 300, "absent/folder/file", "file/below", "nul\0byte"])
def test_what_is_no_file_is_one_sentence(kind, where, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FileError) as error:
        KINDS[kind][2](tmp_path / where)
    sentence(error)


# --- writing


@pytest.mark.parametrize("where", ["folder", "file/below", "x" * 300])
def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(where, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileError, match="expected to write"):
        write_atomically(tmp_path / where, b"new")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    """A file size limit makes the disk look full; the child reports what it saw."""
    target = tmp_path / "file"
    target.write_bytes(b"old")
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from minutia.core.errors import FileError\n"
        "from minutia.storage.files import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    write_atomically(Path(sys.argv[1]), bytes(100_000))\n"
        "except FileError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, target], capture_output=True, text=True, check=True)
    assert "expected to write" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and target.read_bytes() == b"old"


def test_an_interrupt_leaves_nothing_beside_the_file(tmp_path, monkeypatch):
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and target.read_bytes() == b"old"


WRITER = """
import sys
from pathlib import Path
from minutia.storage.files import write_atomically
print("ready", flush=True)
while True:
    for letter in b"ab":
        write_atomically(Path(sys.argv[1]), bytes([letter]) * 300_000)
"""


def _killed_while_writing(target, seconds):
    child = subprocess.Popen([sys.executable, "-c", WRITER, target], stdout=subprocess.PIPE)
    child.stdout.readline()
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    return target.read_bytes()


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path):
    draw = random.Random(0)
    for _ in range(5):
        found = _killed_while_writing(tmp_path / "file", 0.02 + draw.random() * 0.05)
        assert found in (b"a" * 300_000, b"b" * 300_000)


@pytest.mark.slow
def test_many_killed_writers_leave_the_old_file_or_the_new_one(tmp_path):
    draw = random.Random(0)
    for _ in range(40):
        found = _killed_while_writing(tmp_path / "file", draw.random() * 0.1)
        assert found in (b"a" * 300_000, b"b" * 300_000)


def test_readers_never_see_half_a_file(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"a" * 300_000)
    child = subprocess.Popen([sys.executable, "-c", WRITER, target], stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        for _ in range(300):
            assert len(set(target.read_bytes())) == 1
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_every_kind_of_theft_can_be_a_control(tmp_path):
    fp = fingerprint(controls={kind: [9] * 9 for kind in EVERY_KIND})
    save_fingerprint(fp, tmp_path / "fp")
    assert set(load_fingerprint(tmp_path / "fp").controls) == {"owner", *EVERY_KIND}
