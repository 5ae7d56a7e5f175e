"""minutia bench and minutia attack from outside: files, exit codes, one clear sentence for bad input."""

import json
import os

import numpy as np
import pytest
from commands import files, minutia

from minutia import catalog
from minutia.models.toy import ToyClassifier
from minutia.storage.tables import load_table

STUDY = """
name = "small"
seeds = [3]
methods = ["ipguard(probes=20,oversample=6)"]
attacks = ["noise", "labels_only"]
claims = []
ancestor_epochs = 0

[data]
owner = "points.npz?rows=0:300"
thief = "points.npz?rows=300:500"

[model]
architecture = "toy:mlp?sizes=16-12-5"
other = "toy:mlp?sizes=16-8-5"
epochs = 6

[counts]
calibrators = 99
spent = 4
controls = 1
copies = 2
innocents = 4
per_rung = 2
"""


@pytest.fixture
def place(tmp_path):
    rng = np.random.default_rng(1910)
    labels = rng.integers(0, 5, 600)
    images = rng.random((5, 1, 4, 4))[labels] + rng.normal(0, 0.4, (600, 1, 4, 4))
    np.savez(tmp_path / "points.npz", x_train=np.clip(images, 0, 1).astype(np.float32), y_train=labels)
    (tmp_path / "small.toml").write_text(STUDY)
    return tmp_path


def test_bench_writes_everything_and_continues_where_it_was(place):
    done = minutia(place, "bench", "small.toml", "--jobs", "1", "--parquet", "--page", "page.md")
    assert done.code == 0 and "ipguard" in done.out and done.err == ""
    made = {"table.json", "cases.csv", "rates.csv", "report.html", "cases.parquet"}
    assert {f"minutia-bench/small/{name}" for name in made} | {"page.md"} <= done.made
    table = load_table(place / "minutia-bench" / "small" / "table.json")
    before = files(place)
    again = minutia(place, "bench", "small.toml", "--jobs", "1", "--json")
    assert again.code == 0 and not again.made
    assert json.loads(again.out)["digest"] == table["digest"]
    models = {name for name in before if "/models/" in name}
    assert {name: before[name] for name in models} == {n: c for n, c in files(place).items() if "/models/" in n}


def test_compare_says_what_moved(place):
    minutia(place, "bench", "small.toml", "--jobs", "1")
    old = place / "minutia-bench" / "small" / "table.json"
    done = minutia(place, "bench", "small.toml", "--jobs", "1", "--compare", old)
    assert done.code == 0 and "nothing moved beyond its interval" in done.out
    found = json.loads(minutia(place, "bench", "small.toml", "--jobs", "1", "--compare", old, "--json").out)
    assert found["moved"]["moved"] == [] and found["moved"]["compared"] > 10


def test_a_dry_run_trains_nothing(place):
    done = minutia(place, "bench", "small.toml", "--dry-run", "--seeds", "1,2")
    found = json.loads(done.out)
    assert done.code == 0 and not done.made
    assert found["seeds"] == [1, 2] and found["attacks"] == ["noise", "labels_only"]
    assert found["suspects that were attacked per seed, at least"] == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("seeds = [3]", "seeds = [3]\natacks = []"), ["'atacks'", "did you mean attacks?"]),
        (("copies = 2", "copis = 2"), ["did you mean copies?"]),
        (('"noise"', '"nois"'), ["did you mean noise?"]),
        (("ipguard(", "ipgard("), ["did you mean ipguard?"]),
        (("points.npz?rows=0:300", "none.npz"), ["none.npz"]),
        (("seeds = [3]", "seeds = ["), ["TOML"]),
        (('name = "small"', 'name = "../small"'), ["name"]),
        (("rows=300:500", "rows=200:400"), ["without the owner's inputs"]),
        (('"noise"', '"compresion"'), ["did you mean compression?"]),
    ],
)
def test_a_study_that_cannot_run_is_refused_before_anything_is_trained(place, change, words):
    (place / "small.toml").write_text(STUDY.replace(*change))
    done = minutia(place, "bench", "small.toml")
    assert not done.made
    for word in words:
        assert word in done.sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("digitz",), ["'digitz'", "did you mean digits?"]),
        (("none.toml",), ["none.toml"]),
        (("small.toml", "--seeds", "1,x"), ["'1,x'"]),
        (("small.toml", "--seeds", "1,1"), ["different seeds"]),
        (("small.toml", "--page", "/dev/full"), ["/dev/full"]),
        (("small.toml", "--engine", "rai"), ["did you mean ray?"]),
        (("small.toml", "--address", "localhost:1"), ["--engine ray"]),
        (("small.toml", "--compare", "points.npz"), ["table"]),
        (("small.toml", "--dir", "points.npz"), ["points.npz"]),
    ],
)
def test_wrong_options_are_one_sentence(place, arguments, words):
    done = minutia(place, "bench", *arguments, "--jobs", "1")
    assert not done.made
    for word in words:
        assert word in done.sentence


def test_attack_writes_a_copy_that_opens_and_says_what_it_cost(place):
    owner = ToyClassifier.fresh((16, 12, 5), seed=1)
    data = ("--data", "points.npz?rows=300:500")
    done = minutia(place, "attack", "toy:mlp?sizes=16-12-5&seed=1", "prune+fine_tune_all(epochs=2)", *data, "--json")
    found = json.loads(done.out)
    assert done.code == 0 and done.made == {"copy.safetensors"}
    assert found["parents"] == [owner.card.id] and found["fidelity"]["steps"] == 2 * 3
    assert {"accuracy_lost", "agreement", "seconds"} <= found["fidelity"].keys()
    assert found["spec"] == "toy:mlp?sizes=16-12-5&weights=copy.safetensors"
    copy = catalog.model(f"toy:mlp?sizes=16-12-5&weights={place / 'copy.safetensors'}")
    assert copy.card.id == found["id"]
    text = minutia(place, "attack", "toy:mlp?sizes=16-12-5&seed=1", "noise", *data, "-o", "other.safetensors")
    assert text.code == 0 and "weight_distance" in text.out


def test_attack_never_writes_over_what_it_reads(place):
    minutia(place, "attack", "toy:mlp?sizes=16-12-5", "noise", "--data", "points.npz", "-o", "owner.safetensors")
    before = files(place)
    victim = "toy:mlp?sizes=16-12-5&weights=owner.safetensors"
    for output in ("owner.safetensors", "points.npz"):
        done = minutia(place, "attack", victim, "noise", "--data", "points.npz?rows=0:100", "-o", output)
        assert "no input" in done.sentence
    assert files(place) == before


def test_a_link_is_followed_and_a_device_is_refused(place):
    (place / "link.safetensors").symlink_to("real.safetensors")
    command = ("attack", "toy:mlp?sizes=16-12-5", "noise", "--data", "points.npz")
    assert minutia(place, *command, "-o", "link.safetensors").code == 0
    assert (place / "link.safetensors").is_symlink() and (place / "real.safetensors").is_file()
    os.mkfifo(place / "pipe")
    assert "pipe" in minutia(place, *command, "-o", "pipe").sentence
    assert not (place / "pipe").is_file()


def test_a_copy_that_is_worth_nothing_says_so(place):
    command = ("attack", "toy:mlp?sizes=16-12-5", "--data", "points.npz")
    done = minutia(place, command[0], command[1], "fine_tune_all(learning_rate=1e30)", *command[2:], "--json")
    assert json.loads(done.out)["state"] == "diverged"
    assert minutia(place, command[0], command[1], "noise", *command[2:], "--seed", "-1").code == 2


@pytest.mark.parametrize(
    ("attack", "options", "words"),
    [
        ("nois", (), ["did you mean noise?"]),
        ("prune/wrx", (), ["preset of prune"]),
        ("labels_only", (), ["changes answers"]),
        ("noise+labels_only", (), ["changes answers"]),
        ("transferable", (), ["a false claim", "claims"]),
        ("unlearn", (), ["disclosed"]),
        ("average(other=companion)", (), ["companion"]),
        ("distil(student=other)", (), ["student"]),
        ("noise", ("--foreign", "none.npz"), ["none.npz"]),
    ],
)
def test_an_attack_that_cannot_be_made_writes_nothing(place, attack, options, words):
    done = minutia(place, "attack", "toy:mlp?sizes=16-12-5", attack, "--data", "points.npz", *options)
    assert not done.made
    for word in words:
        assert word in done.sentence
