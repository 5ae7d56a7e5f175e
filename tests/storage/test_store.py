"""The store of models: by content, manifest and journal, damage noticed."""

import json
import stat

import numpy as np
import pytest

from minutia.core.errors import FileError, ModelError
from minutia.core.model import ModelCard
from minutia.models.toy import ToyClassifier
from minutia.storage import trust
from minutia.storage.models import Entry, ModelStore, load_weights, save_weights, weights_file
from minutia.study import zoo

TOY = ToyClassifier.fresh((4, 3, 2), seed=1)
ENTRY = Entry("calibrator", "a rung", "toy:mlp?sizes=4-3-2", TOY.card, f"models/{'a' * 64}.safetensors")
HEADER = {"rung": "a rung", "like": "toy:mlp", "data": "d.npz"}


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "deep" / "store")


def test_weights_are_named_by_their_content(store):
    name = store.save_weights(TOY)
    found = load_weights(store.root, name)
    assert found.keys() == dict(TOY.tensors()).keys()
    for key, value in TOY.tensors():
        np.testing.assert_array_equal(found[key], value)
    path = store.root / name
    before = path.stat().st_mtime_ns
    assert save_weights(store.root, dict(reversed(dict(TOY.tensors()).items()))) == name
    assert path.stat().st_mtime_ns == before, "what is there already is not written again"
    assert store.save_weights(ToyClassifier.fresh((4, 3, 2), seed=2)) != name


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "other weights", "gone"])
def test_damaged_weights_are_noticed(store, damage):
    name = store.save_weights(TOY)
    path = store.root / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "other weights":
        path.write_bytes((store.root / store.save_weights(ToyClassifier.fresh((4, 3, 2), seed=2))).read_bytes())
    else:
        changed = {"flip": data[:-3] + bytes([data[-3] ^ 1]) + data[-2:], "truncate": data[:-1], "empty": b""}
        path.write_bytes(changed[damage])
    with pytest.raises(FileError, match="build the model again"):
        load_weights(store.root, name)


def test_every_flipped_byte_of_stored_weights_is_noticed_or_harmless(store):
    """The header may be spelled otherwise; the tensors that come back are always those of the name."""
    name = store.save_weights(TOY)
    path, data = store.root / name, (store.root / name).read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x04]) + data[place + 1 :])
        try:
            found = load_weights(store.root, name)
        except FileError:
            continue
        assert all(np.array_equal(found[k], v) for k, v in TOY.tensors())


def test_an_entry_comes_back():
    assert Entry.from_plain(json.loads(json.dumps(ENTRY.plain()))) == ENTRY
    assert Entry.from_plain(Entry("owner", "owner", "toy:x", ModelCard("a", "b"), None).plain()).weights is None


def test_the_manifest_comes_back(store):
    with pytest.raises(FileError, match="minutia null build"):
        store.manifest()
    store.write_manifest({"schema": "minutia.zoo/1", **HEADER}, [ENTRY])
    header, entries = store.manifest()
    assert header == {"schema": "minutia.zoo/1", **HEADER} and entries == [ENTRY]
    assert stat.S_IMODE((store.root / "zoo.json").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "null",
        '{"rung":"r","like":"l","data":"d"}',
        '{"rung":"r","like":"l","data":"d","models":7}',
        '{"rung":"r","like":"l","data":"d","models":[7]}',
        '{"rung":"r","like":"l","data":"d","models":[{}]}',
        '{"rung":"r","like":"l","models":[]}',
        '{"rung":1,"like":"l","data":"d","models":[]}',
        "[" * 100_000,
        "\ud800",
    ],
    ids=range(13),
)
def test_a_damaged_manifest_is_one_sentence(store, text):
    (store.root / "zoo.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(FileError, match="expected a manifest") as error:
        store.manifest()
    assert "\n" not in str(error.value)


def test_a_task_is_finished_while_its_weights_are_there(store):
    name, content = weights_file(dict(TOY.tensors()))
    store.keep("one", {"a": 1}, {name: content})
    store.keep("two", {"b": None}, {})
    assert store.results(["one", "two", "three"]) == {"one": {"a": 1}, "two": {"b": None}}
    assert load_weights(store.root, name).keys() == dict(TOY.tensors()).keys()
    (store.root / name).unlink()
    assert store.results(["one", "two"]) == {"two": {"b": None}}


@pytest.mark.parametrize("name", ["../outside.safetensors", "models/x.safetensors", "/outside/" + "a" * 64])
def test_a_result_whose_files_lie_outside_the_store_is_none(store, name):
    """A journal from elsewhere may say anything."""
    store.journal.put({"one": json.dumps({"value": {}, "files": [name]}).encode()})
    assert store.results(["one"]) == {}


def test_two_stores_of_one_folder_see_each_other(store):
    other = ModelStore(store.root)
    store.keep("one", {}, {})
    other.keep("two", {"a": 2}, {})
    assert store.results(["two"]) == {"two": {"a": 2}}


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, where):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="expected a folder for models"):
        ModelStore(tmp_path / where)


def test_a_store_from_elsewhere_may_not_name_code(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    gift = ModelStore(tmp_path / "gift")
    monkeypatch.setattr(trust, "_made_in_this_run", set())
    entry = Entry("calibrator", "a rung", "torch:evil.py:f", TOY.card, None)
    gift.write_manifest({}, [entry])
    (gift.root / "origin").write_text("somebody else's")
    with pytest.raises(FileError, match="null trust"):
        zoo.open_entry(ModelStore(gift.root), entry)
    assert not (tmp_path / "ran").exists()
    trust.claim(gift.root)
    with pytest.raises(ModelError, match="callable"):
        zoo.open_entry(ModelStore(gift.root), entry)
    assert (tmp_path / "ran").exists(), "trusted code runs"


@pytest.mark.parametrize("kept", ["zoo.json", "journal.sqlite", ""])
def test_only_a_store_that_begins_empty_is_ones_own(tmp_path, monkeypatch, kept):
    gift = ModelStore(tmp_path / "gift")
    monkeypatch.setattr(trust, "_made_in_this_run", set())
    gift.write_manifest(HEADER, [ENTRY])
    gift.keep("task", {}, {})
    gift.journal.close()
    for path in gift.root.iterdir():
        if path.is_file() and path.name != kept:
            path.unlink()
    assert ModelStore(gift.root).own == (kept == "")


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "models/../x.safetensors", "models/x.safetensors"])
def test_weights_outside_the_store_are_refused(tmp_path, name):
    store = ModelStore(tmp_path)
    store.write_manifest({}, [ENTRY])
    path = tmp_path / "zoo.json"
    path.write_text(path.read_text().replace(ENTRY.weights, name))
    with pytest.raises(FileError, match="manifest"):
        store.manifest()


def test_without_a_folder_to_note_it_in_a_new_store_is_ones_own_for_this_run(tmp_path, monkeypatch):
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("MINUTIA_DATA_DIR", str(tmp_path / "a-file" / "below"))
    assert ModelStore(tmp_path / "new").own
    with pytest.raises(FileError, match="MINUTIA_DATA_DIR"):
        trust.claim(tmp_path / "new")
