"""Study files: what is read, and what is refused in one clear sentence."""

import pytest

from minutia.core.errors import FileError, MinutiaError, UsageError
from minutia.core.fingerprint import HARDEST_RUNG
from minutia.study.battery import GROUPS
from minutia.study.file import BASELINES, built_in, load_study, study, study_attacks

PLAIN = {
    "name": "small",
    "seeds": [1, 2],
    "attacks": ["noise", "prune"],
    "claims": [],
    "data": {"owner": "sklearn:digits?rows=0:900", "thief": "sklearn:digits?rows=900:1400"},
    "model": {"architecture": "toy:mlp?sizes=64-16-10", "other": "toy:mlp?sizes=64-8-10"},
}


def changed(**more):
    return study({**PLAIN, **more})


def test_built_in_studies_are_valid_and_have_three_seeds_or_are_miniatures():
    for name, path in built_in().items():
        found = load_study(path)
        assert found.name == name
        assert len(found.seeds) >= 3 or name.endswith("-mini")
        assert found.counts.calibrators >= 99 and found.counts.spent >= 20


def test_the_digits_study_runs_the_whole_battery():
    found = load_study(built_in()["digits"])
    labels = {wanted.label for wanted in study_attacks(found) if not wanted.curve}
    assert labels == {label for some in GROUPS.values() for label in some}
    assert found.counts.calibrators + found.counts.spent >= 119


def test_baselines_are_in_every_study_once():
    assert changed().all_methods == ("ipguard", *BASELINES)
    assert changed(methods=["natural_errors(probes=50)"]).all_methods == (
        "natural_errors(probes=50)",
        "noise_agreement",
    )


def test_rungs_are_the_ladder_and_the_hardest_comes_last():
    found = changed().rungs()
    assert list(found)[-1] == HARDEST_RUNG and len(found) == 4
    assert found[HARDEST_RUNG] == (PLAIN["model"]["architecture"], PLAIN["data"]["owner"], changed().model.plan())
    assert len(changed(data={**PLAIN["data"], "other": "sklearn:digits?rows=1000:1100"}).rungs()) == 5


def test_attacks_are_spelled_out_and_left_out():
    names = [w.label for w in study_attacks(changed(attacks=["fine-tuning", "noise"], without=["retrain_all"]))]
    assert names == ["fine_tune_last", "fine_tune_all", "retrain_last", "noise"]


def test_what_is_left_out_is_the_attack_and_not_its_spelling():
    names = [w.label for w in study_attacks(changed(attacks=["compression"], without=["quantise(bits=8)"]))]
    assert "quantise/int8" not in names and "quantise/int4" in names


def test_curves_take_the_values_of_their_parameter():
    curve = {"title": "t", "attack": "noise(strength={x})", "x": [0.1, 1.0], "copies": 3}
    points = [w for w in study_attacks(changed(curves=[curve])) if w.curve]
    assert [(p.x, p.key, p.copies) for p in points] == [
        (0.1, "noise(strength=0.1)", 3),
        (1.0, "noise(strength=1.0)", 3),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"atacks": ["noise"]}, ["'atacks'", "did you mean attacks?"]),
        ({"counts": {"copys": 3}}, ["'counts.copys'", "did you mean copies?"]),
        (
            {"curves": [{"title": "a", "attack": "noise(strength={x})", "x": [1, 2], "copy": 1}]},
            ["did you mean copies?"],
        ),
        ({"attacks": ["nois"]}, ["'nois'", "did you mean noise?"]),
        ({"attacks": ["noise(strenght=1)"]}, ["did you mean strength?"]),
        ({"methods": ["ipgard"]}, ["'ipgard'", "did you mean ipguard?"]),
        ({"claims": ["transferabel"]}, ["did you mean transferable?"]),
        ({"seeds": []}, ["seeds"]),
        ({"sedes": [1]}, ["did you mean seeds?"]),
        ({"data": {**PLAIN["data"], "foreign": PLAIN["data"]["owner"]}}, ["data.foreign without the owner's"]),
        ({"seeds": [1, 1]}, ["different seeds"]),
        ({"counts": {"copies": 0}}, ["counts.copies", "got 0"]),
        ({"curves": [{"title": "a", "attack": "noise", "x": [1, 2]}]}, ["{x}"]),
        ({"data": {**PLAIN["data"], "thief": "sklearn:nothing"}}, ["sklearn:nothing"]),
        ({"model": {**PLAIN["model"], "other": "torch:minutia.study.architectures:none"}}, ["'none'"]),
        ({"model": {**PLAIN["model"], "other": "toi:mlp"}}, ["did you mean toy?"]),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(change, words):
    with pytest.raises(MinutiaError) as caught:
        changed(**change)
    text = str(caught.value)
    assert text.startswith("expected ") and ("got " in text or "found " in text), text
    for word in words:
        assert word in text, text


def test_missing_keys_are_named():
    with pytest.raises(UsageError, match=r"expected 'model\.other'.*found none"):
        changed(model={"architecture": "toy:mlp"})


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"a" * (2**20 + 1)])
def test_what_is_no_toml_is_refused(tmp_path, content):
    path = tmp_path / "s.toml"
    path.write_bytes(content)
    with pytest.raises(FileError, match="expected a study file"):
        load_study(path)
    with pytest.raises(FileError, match="expected a study file"):
        load_study(tmp_path / "none.toml")
