"""The zoo: same seed same weights, known origin, in one process or several, resumed after a kill."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from minutia import api
from minutia.core.errors import FileError, ModelError, UsageError
from minutia.core.fingerprint import THREATS
from minutia.core.material import Material
from minutia.core.model import Plan
from minutia.core.probe import numbered
from minutia.models.toy import ToyClassifier
from minutia.storage.models import ModelStore
from minutia.study import population, zoo

SPEC = "toy:mlp?sizes=8-6-3&seed=0"
PLAN = Plan(2, batch_size=16, learning_rate=1e-2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """120 points of three classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    path = tmp_path_factory.mktemp("data") / "points.npz"
    np.savez(path, x_train=rng.random((3, 8))[labels] + rng.normal(0, 0.2, (120, 8)), y_train=labels)
    return str(path)


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "zoo")


def unrelated(data, count=3, role="calibrator", seed=0, plan=PLAN):
    return zoo.unrelated_tasks(SPEC, data, count, role=role, rung="a rung", plan=plan, seed=seed)


def plain(entries):
    """Entries without the one thing that differs between runs: how long an attack took."""
    return [
        replace(e, card=replace(e.card, fidelity={k: v for k, v in e.card.fidelity.items() if k != "seconds"}))
        for e in entries
    ]


def owner_of(store, data):
    """A trained owner and the weights file that opens him."""
    entry = zoo.build(store, [zoo.Task("owner", "owner", SPEC, data, 7, PLAN)])[0]
    return zoo.open_entry(store, entry), entry


def derived(owner, data, copies=2, role="control", attacks=("noise(strength=0.1)", "extract_labels(epochs=2)")):
    return zoo.derived_tasks(owner, data, attacks, copies, role=role, seed=0)


# --- same seed, same weights


def test_the_same_seed_gives_the_same_weights_anywhere(store, tmp_path, data):
    one, two = (zoo.build(s, unrelated(data)) for s in (store, ModelStore(tmp_path / "other")))
    assert plain(one) == plain(two)
    assert len({e.card.id for e in one}) == len({e.weights for e in one}) == 3
    assert [e.card.fidelity.keys() for e in one] == [{"accuracy", "confidence", "seconds", "steps"}] * 3


@pytest.mark.parametrize("change", ["seed", "plan", "role", "data"])
def test_another_recipe_gives_another_root(store, data, change):
    tasks = {
        "seed": unrelated(data, 1, seed=1),
        "plan": unrelated(data, 1, plan=Plan(3, batch_size=16, learning_rate=1e-2)),
        "role": unrelated(data, 1, role="spent"),
        "data": unrelated(f"{data}?rows=0:50", 1),
    }
    first, second = zoo.build(store, [*unrelated(data, 1), *tasks[change]])
    assert first.card.root != second.card.root and first.card.id != second.card.id


def test_roots_are_of_the_training_and_ids_of_the_weights(store, data):
    entry = zoo.build(store, unrelated(data, 1))[0]
    opened = zoo.open_entry(store, entry)
    assert opened.card == entry.card and entry.card.root != entry.card.id
    assert ToyClassifier(dict(opened.tensors())).card.id == entry.card.id
    assert entry.card.recipe and SPEC in entry.card.recipe


def test_a_tasks_digest_knows_everything_that_changes_the_result(data, store):
    _, owner = owner_of(store, data)
    base = zoo.Task("control", "noise", SPEC, data, 1, PLAN, "noise()", owner)
    others = [
        replace(base, role="craft"),
        replace(base, kind="prune"),
        replace(base, spec="toy:mlp?sizes=8-3"),
        replace(base, data=f"{data}?rows=0:9"),
        replace(base, seed=2),
        replace(base, plan=Plan(9)),
        replace(base, attack="prune()"),
        replace(base, parent=None),
        replace(base, parent=replace(owner, card=replace(owner.card, id="other"))),
    ]
    assert len({t.digest for t in [base, *others]}) == 10
    assert replace(base).digest == base.digest


def test_the_path_of_the_data_is_no_part_of_a_task(data, tmp_path):
    import shutil

    shutil.copy(data, tmp_path / "moved.npz")
    here, there = (unrelated(d, 1)[0].digest for d in (data, str(tmp_path / "moved.npz")))
    assert here == there


# --- known origin


def test_copies_descend_from_their_parent(store, data):
    _, owner = owner_of(store, data)
    made = zoo.build(store, derived(owner, data), jobs=1)
    assert [e.kind for e in made] == ["noise", "noise", "extract-labels", "extract-labels"]
    for entry in made:
        assert entry.card.root == owner.card.root and entry.card.parents == (owner.card.id,)
        measured = {"accuracy", "accuracy_before", "accuracy_lost", "agreement", "answered", "chance", "confidence"}
        moved = {"seconds", "weights_changed", "weight_distance"}
        effort = {"inputs", "queries", "steps"} if entry.kind == "extract-labels" else set()
        assert entry.card.fidelity.keys() == measured | moved | effort
    assert len({e.card.id for e in made}) == 4


def test_no_model_has_two_roles(store, data):
    """Calibrators, spent models, copies for ordering, controls and suspects never share a seed or an id."""
    _, owner = owner_of(store, data)
    tasks = {role: unrelated(data, 4, role=role) for role in ("calibrator", "spent", "suspect")}
    made = {role: zoo.build(store, some, jobs=1) for role, some in tasks.items()}
    for role in ("control", "craft", "suspect copy"):
        made[role] = zoo.build(store, derived(owner, data, role=role), jobs=1)
    for one, two in combinations(made, 2):
        assert not {e.card.id for e in made[one]} & {e.card.id for e in made[two]}, (one, two)
    roots = [e.card.root for role in tasks for e in made[role]]
    assert len(set(roots)) == len(roots)


def test_extraction_keeps_copies_for_ordering_and_for_control_apart(store, data):
    model, _ = owner_of(store, data)
    copies = population.copy_tasks(population.owner_entry(store, model), data, 3, seed=0)
    roles = {role: {t.seed for t in copies if t.role == role} for role in ("control", "craft")}
    assert not roles["control"] & roles["craft"]
    assert {t.kind for t in copies if t.role == "control"} == set(THREATS)
    assert {t.kind for t in copies if t.role == "craft"} == set(THREATS) - {"distil", "extract-labels"}


# --- what is there is not made again


def test_what_is_there_is_not_made_again(store, data):
    made = zoo.build(store, unrelated(data, 2))
    before = {p: p.stat().st_mtime_ns for p in (store.root / "models").iterdir()}
    told = []
    more = zoo.build(ModelStore(store.root), unrelated(data, 3), progress=lambda *a: told.append(a))
    assert more[:2] == made
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert [(done, total) for done, total, _ in told] == [(2, 3), (3, 3)]


def test_lost_weights_are_made_again_and_are_the_same(store, data):
    (entry,) = zoo.build(store, unrelated(data, 1))
    (store.root / entry.weights).unlink()
    assert plain(zoo.build(store, unrelated(data, 1))) == plain([entry])
    assert (store.root / entry.weights).is_file()


def test_equal_tasks_are_made_once(store, data):
    tasks = unrelated(data, 1) * 3
    told = []
    assert len(set(map(repr, zoo.build(store, tasks, progress=lambda *a: told.append(a))))) == 1
    assert [(done, total) for done, total, _ in told] == [(0, 1), (1, 1)]


def test_two_processes_give_the_digests_of_one(tmp_path, data):
    """More than three tasks go to worker processes."""
    stores = [ModelStore(tmp_path / str(jobs)) for jobs in (1, 2)]
    _, owner = owner_of(stores[0], data)
    stores[1].save_weights(zoo.open_entry(stores[0], owner))
    tasks = [*unrelated(data, 4), *derived(owner, data, 1)]
    one, two = (plain(zoo.build(s, tasks, jobs=jobs)) for s, jobs in zip(stores, (1, 2), strict=True))
    assert one == two


BUILD = """
import sys
import time
from pathlib import Path
from minutia import api
from minutia.core.model import Plan
from minutia.storage.models import ModelStore

def told(done, total, what):
    print(done, flush=True)
    time.sleep(0.05)

recipe = api.Recipe(sys.argv[2], sys.argv[3], Plan(2, batch_size=16, learning_rate=1e-2), "a rung")
store = ModelStore(Path(sys.argv[1]))
api.build_null(store, recipe, calibrators=12, spent=4, spent_halves=0, jobs=1, progress=told)
"""


def run_build(root, data, kill_after=None):
    child = subprocess.Popen([sys.executable, "-c", BUILD, root, SPEC, data], stdout=subprocess.PIPE, text=True)
    seen = []
    for line in child.stdout:
        seen.append(int(line))
        if kill_after is not None and len(seen) > kill_after:
            child.send_signal(signal.SIGKILL)
            break
    child.wait()
    child.stdout.close()
    return seen, child.returncode


def test_a_killed_build_continues_where_it_stopped(tmp_path, data):
    """Nothing is made twice, and the end is that of a build that nobody disturbed."""
    root = tmp_path / "killed"
    first, code = run_build(root, data, kill_after=5)
    assert code == -signal.SIGKILL and not (root / "zoo.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in (root / "models").glob("*.safetensors")}
    assert first[-1] <= len(kept) <= first[-1] + 1, "weights are written before the journal says so"
    second, code = run_build(root, data)
    assert code == 0 and second[0] >= first[-1] and second[-1] == 16
    assert {p: p.stat().st_mtime_ns for p in kept} == kept

    quiet = ModelStore(tmp_path / "quiet")
    undisturbed = api.build_null(
        quiet, api.Recipe(SPEC, data, PLAN, "a rung"), calibrators=12, spent=4, spent_halves=0, jobs=1
    )
    assert plain(ModelStore(root).manifest()[1]) == plain(undisturbed)
    names = [sorted(p.name for p in (r / "models").iterdir() if p.suffix == ".safetensors") for r in (root, quiet.root)]
    assert names[0] == names[1] and len(names[0]) == 16


def test_checkpoints_are_states_of_one_training(store, data):
    """The last state is the whole training; all have its root, so none may stand on another side than the rest."""
    plan = replace(PLAN, epochs=6)
    (whole,) = zoo.unrelated_tasks(SPEC, data, 1, role="spent", rung="a rung", plan=plan, seed=3)
    tasks = zoo.checkpoint_tasks([whole], 2)
    assert [task.stopped for task in tasks] == [2, 4]
    entries = zoo.build(store, [whole, *tasks, replace(whole, stopped=6)], jobs=1)
    assert len({e.card.id for e in entries}) == 3 and entries[0].card.id == entries[3].card.id
    assert len({e.card.root for e in entries}) == 1 and len({e.card.recipe for e in entries[:3]}) == 3
    assert zoo.checkpoint_tasks([replace(whole, plan=replace(PLAN, epochs=1))], 5) == []
    with pytest.raises(UsageError, match="of a constant learning rate"):
        replace(whole, plan=replace(plan, schedule="cosine"), stopped=1)


def test_a_null_with_checkpoints_has_as_many_models_as_one_without(tmp_path, data):
    """States of one training stand on one side and are spent with it; calibrators have none."""
    recipe = api.Recipe(SPEC, data, PLAN, "a rung")
    made = api.build_null(ModelStore(tmp_path), recipe, calibrators=3, spent=4, spent_halves=1, checkpoints=1, jobs=1)
    counts = {role: [e for e in made if e.role == role] for role in ("calibrator", "spent")}
    assert {role: len(some) for role, some in counts.items()} == {"calibrator": 3, "spent": 12}
    assert len({e.card.root for e in counts["spent"]}) == 6
    spent = [zoo.open_entry(ModelStore(tmp_path), e) for e in counts["spent"]]
    fit, screen = (m.unrelated for m in Material(np.zeros((1, 8)), np.zeros(1), unrelated=spent).parted())
    assert not {m.card.root for m in fit} & {m.card.root for m in screen} and len(fit) + len(screen) == 12


@pytest.mark.slow
def test_builds_killed_at_many_moments_end_the_same(tmp_path, data):
    quiet = api.build_null(
        ModelStore(tmp_path / "quiet"),
        api.Recipe(SPEC, data, PLAN, "a rung"),
        calibrators=12,
        spent=4,
        spent_halves=0,
        jobs=1,
    )
    root, draw = tmp_path / "killed", np.random.default_rng(0)
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", BUILD, root, SPEC, data], stdout=subprocess.DEVNULL)
        time.sleep(0.3 + draw.random())
        child.kill()
        child.wait()
    assert run_build(root, data)[1] == 0
    assert plain(ModelStore(root).manifest()[1]) == plain(quiet)


def test_a_worker_that_is_killed_is_one_sentence(store, data):
    """The factory of this suspect ends its own process, as the kernel does when memory runs out."""
    pytest.importorskip("torch")
    (store.root / "deadly.py").write_text("import os\n\n\ndef net():\n    os._exit(9)\n")
    spec = f"torch:{store.root / 'deadly.py'}:net"
    tasks = zoo.unrelated_tasks(spec, data, 4, role="suspect", rung="r", plan=PLAN, seed=0)
    with pytest.raises(ModelError, match=r"one that was killed .*run the same command again"):
        zoo.build(store, tasks, jobs=2)


# --- errors


def test_a_model_that_cannot_be_trained_is_refused(store, data, tmp_path):
    (tmp_path / "text").write_text("hello there")
    tasks = zoo.unrelated_tasks(f"toy:ngram?text={tmp_path / 'text'}", data, 1, role="x", rung="r", plan=PLAN, seed=0)
    with pytest.raises(UsageError, match="a model that can be trained"):
        zoo.build(store, tasks)


def test_damaged_weights_are_noticed_when_opened(store, data):
    (entry,) = zoo.build(store, unrelated(data, 1))
    path = store.root / entry.weights
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FileError, match="build the model again"):
        zoo.open_entry(store, entry)


def test_a_tiny_data_set_without_a_held_out_part_trains_too(store, tmp_path):
    np.savez(tmp_path / "tiny.npz", inputs=np.eye(3, 8), labels=np.arange(3))
    data = str(tmp_path / "tiny.npz")
    (entry,) = zoo.build(store, unrelated(data, 1))
    assert entry.card.fidelity.keys() == {"seconds", "steps"}, "what was not measured is absent"
    _, owner = owner_of(store, data)
    (copy,) = zoo.build(store, derived(owner, data, 1, attacks=["noise()"]))
    assert copy.card.fidelity.keys() == {"seconds", "weights_changed", "weight_distance"}


def test_accuracy_is_the_share_of_right_answers():
    model = ToyClassifier({"w0": np.eye(3), "b0": np.zeros(3)})
    assert zoo.held_out(model, np.eye(3, dtype=np.float32), np.array([0, 1, 1]))["accuracy"] == pytest.approx(2 / 3)
    nan = ToyClassifier({"w0": np.full((3, 3), np.nan), "b0": np.zeros(3)})
    assert zoo.held_out(nan, np.eye(3, dtype=np.float32), np.arange(3)) == {"accuracy": 0}


def test_seeds_are_stable_over_processes():
    assert zoo.seed_of(0, "calibrator", "a rung", 1) == zoo.seed_of(0, "calibrator", "a rung", 1)
    assert len({zoo.seed_of(0, role, i) for role in ("a", "b") for i in range(50)}) == 100
    code = "from minutia.study.zoo import seed_of; print(seed_of(0, 'x', 1))"
    env = os.environ | {"PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert int(done.stdout) == zoo.seed_of(0, "x", 1)


def test_models_of_the_zoo_can_be_asked(store, data):
    (entry,) = zoo.build(store, unrelated(data, 1))
    assert len(zoo.open_entry(store, entry).ask(numbered(np.zeros((2, 8), np.float32), {}))) == 2
