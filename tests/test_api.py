"""The straight lines from Python: build or collect a null, extract, observe, verify; and the catalogue of names."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from safetensors.numpy import save_file

import minutia
from minutia import api, catalog
from minutia.core.access import Access
from minutia.core.answers import Status
from minutia.core.errors import (
    FileError,
    ModelError,
    NullError,
    ProtocolError,
    UnknownNameError,
    UsageError,
)
from minutia.core.fingerprint import THREATS
from minutia.core.model import ModelCard, Plan
from minutia.models.toy import ToyClassifier
from minutia.storage.models import ModelStore
from minutia.study import zoo

SPEC = "toy:mlp?sizes=8-10-4&seed=0"
PLAN = Plan(6, batch_size=16, learning_rate=1e-2)
METHOD = "ipguard(probes=16,oversample=8)"


@dataclass(frozen=True)
class Scene:
    root: object
    recipe: api.Recipe
    owner: ToyClassifier
    fp: minutia.Fingerprint
    null: minutia.Null

    @property
    def store(self):
        return ModelStore(self.root / "zoo")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("api")
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 300)
    x = np.clip(rng.random((4, 8))[labels] + rng.normal(0, 0.3, (300, 8)), 0, 1)
    np.savez(root / "points.npz", x_train=np.rint(x * 255).astype(np.uint8), y_train=labels)
    recipe = api.Recipe(SPEC, str(root / "points.npz"), PLAN)
    store = ModelStore(root / "zoo")
    minutia.build_null(store, recipe, calibrators=9, spent=4, spent_halves=0, jobs=1)
    data = minutia.load_dataset(recipe.data)
    owner = ToyClassifier.fresh((8, 10, 4)).trained(data.inputs, data.labels, replace(PLAN, reset="everything"), 77)
    save_file(dict(owner.tensors()), root / "owner.safetensors")
    owner = minutia.model(f"toy:{root / 'owner.safetensors'}")
    fp = minutia.extract(owner, data, minutia.method(METHOD), unrelated=store, copies=2, jobs=1)
    return Scene(root, recipe, owner, fp, minutia.observe_null(fp, store))


def test_the_story_in_six_lines(scene):
    assert scene.null.m == 9 and scene.null.source == f"9 models like {SPEC} on {scene.recipe.data}"
    assert set(scene.fp.controls) == {"owner", *THREATS} and len(scene.fp.spent) == 4
    assert minutia.verify(scene.fp, scene.owner, scene.null, alpha=0.1).outcome == "match"
    fresh = minutia.model("toy:mlp?sizes=8-10-4&seed=5")
    assert minutia.verify(scene.fp, fresh, scene.null, alpha=0.1).outcome == "inconclusive"


def test_the_same_seed_gives_the_same_digest_with_other_stores(scene, tmp_path):
    data = minutia.load_dataset(scene.recipe.data)
    other = ModelStore(tmp_path / "copies")
    again = minutia.extract(
        scene.owner, data, minutia.method(METHOD), unrelated=scene.store, derived=other, copies=2, jobs=1
    )
    assert again.digest == scene.fp.digest
    assert [o.digest for o in minutia.observe_null(again, scene.store).observations] == [
        o.digest for o in scene.null.observations
    ]


def test_without_stores_there_are_no_controls_and_no_screening(scene):
    data = minutia.load_dataset(scene.recipe.data)
    bare = minutia.extract(scene.owner, data, minutia.method(METHOD))
    assert set(bare.controls) == {"owner"} and not bare.spent and not bare.reference
    flags = minutia.verify(bare, scene.owner, minutia.Null.none()).flags
    assert {"null-missing", "unscreened", "no-controls"} <= set(flags)


def test_labels_only_hides_the_scores(scene):
    whole = minutia.verify(scene.fp, scene.owner, scene.null, alpha=0.1)
    labels = minutia.verify(scene.fp, scene.owner, scene.null, alpha=0.1, only=Access.LABELS)
    assert (labels.score, labels.p_value) == (whole.score, whole.p_value) and labels.observation != whole.observation


def test_a_fingerprint_of_a_method_that_is_gone_is_one_sentence(scene):
    with pytest.raises(UnknownNameError, match="got 'ipgard': did you mean ipguard"):
        minutia.verify(replace(scene.fp, method="ipgard()@1"), scene.owner, scene.null)
    with pytest.raises(UsageError, match="install the minutia version"):
        minutia.verify(replace(scene.fp, method=scene.fp.method.replace("@1", "@2")), scene.owner, scene.null)


def test_parameters_given_as_whole_numbers_can_be_verified(scene):
    """A method built in Python with margin=0 names itself as one built from its key does."""
    from minutia.methods.classifiers.ipguard import IPGuard

    data = minutia.load_dataset(scene.recipe.data)
    fp = minutia.extract(scene.owner, data, IPGuard(probes=np.int64(8), margin=0, oversample=8))
    assert minutia.verify(fp, scene.owner, minutia.Null.none()).score == 1.0


def test_an_empty_store_gives_no_null(scene, tmp_path):
    store = ModelStore(tmp_path / "empty")
    api.collect_null(store, [], rung="a rung")
    assert minutia.observe_null(scene.fp, store).m == 0


# --- collecting


def test_models_of_equal_content_count_once(tmp_path):
    store = ModelStore(tmp_path / "zoo")
    same = [f"toy:mlp?sizes=8-4&seed={i % 3}" for i in range(9)]
    entries = minutia.collect_null(store, same, rung="untrained", spent=1)
    assert [e.role for e in entries] == ["calibrator", "calibrator", "spent"]
    with pytest.raises(UsageError, match="got 3: equal content counts once"):
        minutia.collect_null(store, same, rung="untrained", spent=4)


def test_a_store_holds_one_population_however_it_was_filled(scene, tmp_path):
    with pytest.raises(UsageError, match="one declared null population"):
        minutia.collect_null(scene.store, [SPEC], rung=scene.recipe.rung)
    store = ModelStore(tmp_path / "zoo")
    minutia.collect_null(store, [SPEC], rung="one")
    with pytest.raises(UsageError, match="one declared null population"):
        minutia.collect_null(store, [SPEC], rung="two")
    with pytest.raises(UsageError, match="one declared null population"):
        minutia.build_null(store, scene.recipe, calibrators=1, spent=0, spent_halves=0)
    header, entries = store.manifest()
    assert (header["rung"], len(entries)) == ("one", 1)


def test_a_collected_file_that_changed_is_noticed(scene, tmp_path):
    save_file(dict(ToyClassifier.fresh((8, 4), 1).tensors()), tmp_path / "found.safetensors")
    store = ModelStore(tmp_path / "zoo")
    minutia.collect_null(store, [f"toy:{tmp_path / 'found.safetensors'}"], rung="a rung")
    assert minutia.observe_null(scene.fp, store).m == 1
    save_file(dict(ToyClassifier.fresh((8, 4), 2).tensors()), tmp_path / "found.safetensors")
    with pytest.raises(ModelError, match="collect it again"):
        minutia.observe_null(scene.fp, store)


# --- nulls from places


def test_a_null_joins_files_and_stores(scene, tmp_path):
    minutia.save_null(scene.null, tmp_path / "null")
    joined = minutia.null_from(scene.fp, [tmp_path / "null", scene.root / "zoo", tmp_path / "null"])
    assert joined.m == 9 and len(joined.observations) == 9
    assert minutia.null_from(scene.fp, []).m == 0
    with pytest.raises(FileError, match="minutia null build"):
        minutia.null_from(scene.fp, [tmp_path])


def test_a_store_that_grew_is_asked_again(scene, tmp_path):
    import shutil

    shutil.copytree(scene.root / "zoo", tmp_path / "zoo")
    assert minutia.null_from(scene.fp, [tmp_path / "zoo"]).m == 9
    minutia.build_null(ModelStore(tmp_path / "zoo"), scene.recipe, calibrators=11, spent=4, spent_halves=0, jobs=1)
    assert minutia.null_from(scene.fp, [tmp_path / "zoo"]).m == 11


def test_the_owner_himself_cannot_calibrate(scene, tmp_path):
    store = ModelStore(tmp_path / "zoo")
    minutia.collect_null(store, [scene.owner.spec], rung="a rung")
    with pytest.raises(NullError, match="shares the owner's root"):
        minutia.observe_null(scene.fp, store)


def test_spent_models_do_not_calibrate(scene):
    spent = [zoo.open_entry(scene.store, e) for e in scene.store.manifest()[1] if e.role == "spent"]
    seen = minutia.Observation(
        spent[0].card, scene.fp.probes.ids, spent[0].ask(scene.fp.probes), scene.fp.probes.digest
    )
    with pytest.raises(NullError, match="spent model"):
        minutia.verify(scene.fp, scene.owner, replace(scene.null, observations=(*scene.null.observations, seen)))


def test_lost_answers_of_null_models_are_refused(scene):
    first = scene.null.observations[0]
    status = first.answers.status.copy()
    status[0] = Status.FAILED
    lost = replace(first, answers=replace(first.answers, status=status))
    with pytest.raises(NullError, match="lost ones"):
        minutia.verify(scene.fp, scene.owner, replace(scene.null, observations=(lost,)))
    part = first.only(first.asked[:-1])
    with pytest.raises(NullError, match="to all probes"):
        minutia.verify(scene.fp, scene.owner, replace(scene.null, observations=(part,)))


def test_agreement_on_common_probes(scene):
    assert api.prefix_agreement(scene.fp, scene.fp) == 1.0
    data = minutia.load_dataset(scene.recipe.data)
    other = minutia.extract(scene.owner, data, minutia.method("noise_agreement(probes=4)"))
    assert api.prefix_agreement(scene.fp, other) is None


def test_an_observation_of_another_fingerprint_is_refused(scene):
    data = minutia.load_dataset(scene.recipe.data)
    other = minutia.extract(scene.owner, data, minutia.method(METHOD), seed=9)
    with pytest.raises(ProtocolError, match="minutia null observe"):
        minutia.verify(other, scene.owner, scene.null)


# --- the catalogue


def test_names_are_found_and_nearest_ones_offered():
    assert catalog.names("methods") == sorted(catalog.names("methods"))
    assert {"toy", "onnx", "torch", "replay"} <= set(catalog.names("models"))
    with pytest.raises(UnknownNameError, match="did you mean natural_errors"):
        catalog.method("natural_error")
    with pytest.raises(UnknownNameError, match=r"got 'zzz'$"):
        catalog.attack("zzz")


def test_a_bare_path_is_sniffed_by_its_content(tmp_path):
    line = '{"model":"m","prompt_id":"p","prompt":"x","response":1}\n'
    for name in ("said.jsonl", "said.onnx", "said"):
        (tmp_path / name).write_text("\n " + line)
        assert catalog.model(str(tmp_path / name)).spec.startswith("replay:")
    (tmp_path / "cut.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match="expected an ONNX model"):
        catalog.model(str(tmp_path / "cut.onnx"))
    save_file({"w": np.zeros(2)}, tmp_path / "some.safetensors")
    with pytest.raises(UsageError, match=r"torch:module:factory\?weights="):
        catalog.model(str(tmp_path / "some.safetensors"))


def test_a_model_opened_twice_is_one_model():
    assert minutia.model(SPEC).card == minutia.model(SPEC).card != ModelCard("a", "a")
