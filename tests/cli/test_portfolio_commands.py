"""Several methods from the command line: extract, verify from labels, members in the verdict, bench by access."""

import json

import pytest
from commands import LIKE, THIEF, TRAINING, files, inside, minutia, people

from minutia import catalog
from minutia.storage.files import load_fingerprint, load_null
from minutia.storage.models import ModelStore
from minutia.study import population
from minutia.study.battery import SURROGATES

META = "metaclassifier(probes=24,pool=300,crafted=40,steps=30)"
IPG = "ipguard(probes=20,oversample=6)"
CONF = "conferrable(probes=16,steps=20)"
ALPHA = ("--alpha", "0.05")
SOURCES = ("--data", TRAINING, "--unrelated", "zoo", "--derived", "copies", "--jobs", "1")
EXTRACT = ("--attack-data", THIEF, "--surrogates", "1", "--threats", "noise,prune", "--copies", "2", *SOURCES)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """19 calibrators, 40 spent models, an owner whose copies were made in every way, suspects of known origin."""
    folder = tmp_path_factory.mktemp("learnt")
    people(folder)
    recipe = ("--like", LIKE, "--data", TRAINING, "--epochs", 8, "--learning-rate", 4e-3)
    done = minutia(
        folder, "null", "build", "-o", "zoo", "-n", 19, "--spent", 32, "--spent-halves", 4, "--jobs", 1, *recipe
    )
    assert done.code == 0, done.err
    key = f"{META}+{IPG}+{CONF}"
    done = minutia(folder, "extract", "toy:owner.safetensors", "-o", "fp.safetensors", "--method", key, *EXTRACT)
    assert done.code == 0, done.err
    return folder


def verdict(place, suspect, *options, fp="fp.safetensors"):
    done = minutia(place, "verify", fp, f"toy:{suspect}.safetensors", *ALPHA, "--json", *options)
    assert done.code in (0, 1, 3), done
    return json.loads(done.out)


# --- extracting


def test_controls_are_those_of_the_threat_list(learnt):
    """Copies to learn from are made in every way, whatever the threats; none of them is a control."""
    fp = load_fingerprint(learnt / "fp.safetensors")
    assert [bool(part.why) for part in fp.members] == [False] * 3
    assert {kind: len(seen) for kind, seen in fp.controls.items()} == {"owner": 1, "noise": 2, "prune": 2}
    assert fp.threats == ("noise", "prune")


@pytest.mark.parametrize(("student", "foreign"), [("", ""), ("toy:mlp?sizes=16-8-5", "points.npz?rows=500:600")])
def test_the_owner_copies_his_model_in_every_way(learnt, student, foreign):
    """Ways that need another architecture are left out where none is given; copies that keep weights are told apart."""
    with inside(learnt):
        owner = population.owner_entry(ModelStore(learnt / "copies"), catalog.model("toy:owner.safetensors"))
        tasks = population.surrogate_tasks(owner, TRAINING, 2, 0, student=student, foreign=foreign)
        ways = [catalog.attack(key).key for key in SURROGATES if student or "student=other" not in key]
        whole = [way for way in ways for _ in range(2)]
        assert [task.attack for task in tasks] == [*whole, *ways, *ways]
        data = [TRAINING, f"{TRAINING}&part=1/2", f"{TRAINING}&part=2/2"]
        assert [task.data for task in tasks] == [d for d, n in zip(data, (2, 1, 1), strict=True) for _ in ways * n]
        assert all((task.role == "craft") == catalog.attack(task.attack).keeps_weights for task in tasks)
        assert len({task.digest for task in tasks}) == len({task.seed for task in tasks}) == len(tasks)
        assert all((task.student, task.foreign) == (student, foreign) and task.parent is owner for task in tasks)
        other = population.surrogate_tasks(owner, TRAINING, 2, 1, student=student)
        assert not {task.seed for task in tasks} & {task.seed for task in other}


def test_spent_models_set_the_scale_only_where_nothing_was_fitted(learnt):
    fp = load_fingerprint(learnt / "fp.safetensors")
    assert len(fp.spent) == 40 and len(fp.reference) == 8
    assert load_null(learnt / "fp.null.safetensors").m == 19


def test_show_names_every_member(learnt):
    found = json.loads(minutia(learnt, "fingerprint", "show", "fp.safetensors", "--json").out)
    sizes = [f"{len(part.rows)} probes" for part in load_fingerprint(learnt / "fp.safetensors").members]
    assert list(found["members"].values()) == sizes == ["24 probes", "20 probes", "16 probes"]
    assert found["method"] == "+".join(found["members"]) and found["probes"] == 60
    text = minutia(learnt, "fingerprint", "show", "fp.safetensors").out
    assert "members" in text and "conferrable" in text


def test_the_same_command_gives_the_same_fingerprint(learnt):
    before = files(learnt)["fp.safetensors"]
    options = ("--method", f"{META}+{IPG}+{CONF}", *EXTRACT)
    again = minutia(learnt, "extract", "toy:owner.safetensors", "-o", "again.safetensors", *options)
    assert again.code == 0 and files(learnt)["again.safetensors"] == before


def test_what_lacks_copies_is_left_out_with_a_reason(learnt):
    """Without copies the methods that learn from them stay out, and the verdict comes from the rest."""
    options = ("--method", f"{META}+{IPG}+{CONF}", "--surrogates", "0", "--copies", "0", *SOURCES)
    done = minutia(learnt, "extract", "toy:owner.safetensors", "-o", "few.safetensors", *options, "--json")
    assert done.code == 0, done.err
    first, second, third = json.loads(done.out)["members"].values()
    assert "copies to learn from, got 0" in first and second == "20 probes" and "copies with gradients" in third
    assert verdict(learnt, "copy", fp="few.safetensors")["outcome"] == "match"


def test_without_unrelated_models_the_portfolio_says_who_is_left_out(learnt):
    """The default of extract is the portfolio of the house; members that learn say what they need."""
    done = minutia(learnt, "extract", "toy:owner.safetensors", "--data", TRAINING, "-o", "none.safetensors")
    assert done.code == 0 and "none.safetensors" in done.made
    assert "expected 4 or more unrelated models" in done.out and "'minutia null build --spent 80'" in done.out


def test_the_default_is_the_portfolio_of_the_house(learnt):
    done = minutia(learnt, "extract", "toy:owner.safetensors", "--data", TRAINING, "--dry-run")
    assert done.code == 0 and json.loads(done.out)["method"] == catalog.method("portfolio").key


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (f"{IPG}+{IPG}", "expected two or more different methods"),
        (f"{IPG}+sensitive_samples", "for the question 'origin'"),
        (f"{IPG}+ipgard", "did you mean ipguard"),
        (f"{IPG}+", "expected"),
    ],
)
def test_what_is_no_portfolio_is_one_sentence(learnt, method, words):
    done = minutia(learnt, "extract", "toy:owner.safetensors", "--method", method, *EXTRACT, "-o", "new.safetensors")
    assert words in done.sentence and not done.made


# --- verifying


@pytest.mark.parametrize("options", [(), ("--labels-only",)], ids=["all", "labels"])
def test_copies_are_told_from_innocents(learnt, options):
    assert [verdict(learnt, s, *options)["outcome"] for s in ("owner", "copy")] == ["match"] * 2
    assert verdict(learnt, "innocent", *options)["outcome"] != "match"


def test_the_verdict_lists_its_members(learnt):
    found = verdict(learnt, "copy", "--ask-all")
    fp = load_fingerprint(learnt / "fp.safetensors")
    assert [m["method"] for m in found["members"]] == [part.method for part in fp.members]
    for member, part in zip(found["members"], fp.members, strict=True):
        assert set(member) == {"method", "asked", "score", "standardised", "p_value", "kind", "counts"}
        assert (member["asked"], member["kind"]) == (len(part.rows), "rank") and member["p_value"] >= 0.05
    assert found["score"] == pytest.approx(max(m["standardised"] for m in found["members"]), abs=1)
    assert found["p_value"] == found["p_floor"] == 0.05


def test_people_see_the_members_below_the_verdict(learnt):
    done = minutia(learnt, "verify", "fp.safetensors", "toy:innocent.safetensors", *ALPHA)
    assert "members (each by itself; the p-value above is that of all together)" in done.out
    assert all(name in done.out for name in ("metaclassifier", "ipguard", "conferrable"))


def test_labels_only_is_what_a_suspect_without_scores_gets(learnt):
    """A replayed transcript of labels and the open model asked for labels only give one verdict."""
    options = ("--labels-only", "--ask-all", "--transcript", "said.jsonl")
    first = verdict(learnt, "innocent", *options)
    lines = [json.loads(line) for line in (learnt / "said.jsonl").read_text().splitlines()]
    assert len(lines) == 60 and not any("scores" in str(line["response"]) for line in lines)
    done = minutia(learnt, "verify", "fp.safetensors", "replay:said.jsonl", *ALPHA, "--json", "--ask-all")
    again = json.loads(done.out)
    assert {k: again[k] for k in ("p_value", "score", "members", "path")} == {
        k: first[k] for k in ("p_value", "score", "members", "path")
    }


def test_a_budget_ends_at_a_look(learnt):
    found = verdict(learnt, "innocent", "--max-queries", 20)
    assert found["queries"] <= 20 and "budget-stop" in found["flags"]
    assert sum(m["asked"] for m in found["members"]) == found["queries"]


# --- bench


@pytest.mark.parametrize("access", ["labels", "scores", "weights"])
def test_bench_takes_an_access(learnt, access):
    done = minutia(learnt, "bench", "digits-mini", "--access", access, "--dry-run")
    assert done.code == 0 and json.loads(done.out)["study"] == "digits-mini"


def test_an_access_that_is_none_is_one_sentence(learnt):
    done = minutia(learnt, "bench", "digits-mini", "--access", "label", "--dry-run")
    assert "access" in done.sentence and "labels" in done.sentence and "'label'" in done.sentence


STUDY = """
name = "shown"
seeds = [3]
methods = ["natural_errors(probes=40)"]
attacks = ["noise"]
claims = []
ancestor_epochs = 0

[data]
owner = "points.npz?rows=0:400"
thief = "points.npz?rows=400:600"

[model]
architecture = "toy:mlp?sizes=16-12-5"
other = "toy:mlp?sizes=16-8-5"
epochs = 4

[counts]
calibrators = 9
spent = 4
controls = 1
copies = 2
innocents = 2
per_rung = 2
"""


def test_bench_runs_again_with_another_access_and_keeps_the_models(learnt):
    (learnt / "shown.toml").write_text(STUDY)
    first = minutia(learnt, "bench", "shown.toml", "--jobs", "1", "--dir", "shown", "--json")
    assert first.code == 0, first.err
    models = {name for name in files(learnt) if name.startswith("shown/models/")}
    other = minutia(learnt, "bench", "shown.toml", "--jobs", "1", "--dir", "shown", "--json", "--access", "scores")
    assert other.code == 0, other.err
    assert {name for name in files(learnt) if name.startswith("shown/models/")} == models
    shows = {json.loads(done.out)["facts"]["access"] for done in (first, other)}
    assert shows == {"labels", "scores"}


# --- a second fingerprint in reserve


def test_a_reserve_recognises_who_unlearnt_the_first_fingerprint(learnt):
    """Copies that unlearnt the first one stand by when the reserve is made; how much that is worth, studies measure."""
    options = ("--method", META, *EXTRACT, "--surrogates", "2", "--reserve-for", "fp.safetensors", "--seed", 1)
    done = minutia(learnt, "extract", "toy:owner.safetensors", "-o", "reserve.safetensors", *options)
    assert done.code == 0, done.err
    first, reserve = load_fingerprint(learnt / "fp.safetensors"), load_fingerprint(learnt / "reserve.safetensors")
    assert reserve.threats == ("noise", "prune", "unlearn") and len(reserve.controls["unlearn"]) == 2
    assert len(reserve.probes) == 24 and first.owner.id == reserve.owner.id
    options = ("--data", THIEF, "--disclosed", "fp.safetensors", "-o", "unlearnt.safetensors")
    assert minutia(learnt, "attack", "toy:owner.safetensors", "unlearn", *options).code == 0
    found = {who: verdict(learnt, who, fp="reserve.safetensors")["outcome"] for who in ("unlearnt", "copy", "innocent")}
    assert found["unlearnt"] == found["copy"] == "match" != found["innocent"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--copies", "0"), "a reserve needs --derived or --unrelated and --copies 1 or more"),
        (("--method", "sensitive_samples"), "expected --reserve-for with a method for the question of origin"),
    ],
)
def test_a_reserve_that_could_not_be_one_is_refused(learnt, options, said):
    wanted = ("--data", TRAINING, "--derived", "copies", "--reserve-for", "fp.safetensors", *options)
    done = minutia(learnt, "extract", "toy:owner.safetensors", "-o", "no.safetensors", *wanted)
    assert done.code == 2 and said in done.err and "no.safetensors" not in done.made


def test_the_reserve_of_another_model_is_refused(learnt):
    wanted = ("--data", TRAINING, "--derived", "copies", "--reserve-for", "fp.safetensors")
    done = minutia(learnt, "extract", "toy:innocent.safetensors", "-o", "no.safetensors", *wanted)
    assert done.code == 2 and "expected an earlier fingerprint of toy:innocent.safetensors" in done.err
