"""The engine for a cluster on a real one: two nodes, the same digests, nodes that die and nodes that join."""

import json
import time
from collections import Counter

import clusters
import drivers
import pytest

from minutia.study.engines import Local

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
LIMIT = 150.0


@pytest.fixture(scope="module")
def cluster():
    with clusters.Cluster() as found:
        found.join()
        yield found


@pytest.fixture
def points(tmp_path):
    return drivers.points(tmp_path / "points.npz")


def built(cluster, tmp_path, kind, data):
    """A driver that builds the zoo of that kind on the cluster."""
    arguments = [tmp_path / "store", kind, data, tmp_path / "log", "1", "ray", cluster.address]
    return cluster.driver(drivers.__file__, *arguments)


def finished(child):
    """What a driver printed last; a driver that fails shows why."""
    out, err = child.communicate(timeout=LIMIT)
    assert child.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def alone(tmp_path, kind, data):
    """The same zoo in this process."""
    store = tmp_path / "alone"
    entries = drivers.build(store, kind, data, str(tmp_path / "alone.log"), "", Local(1))
    return drivers.plain(entries), files(store)


def files(store):
    return {path.name: path.read_bytes() for path in (store / "models").iterdir()}


def call(cluster, program, *arguments):
    """Run a few lines in a driver; they leave what they found in ``found``."""
    return finished(cluster.driver("-c", f"{program}\nimport json; print(json.dumps(found))", *arguments))


# --- the same digests


@pytest.mark.parametrize("kind", ["toy", "torch"])
def test_a_cluster_gives_the_entries_and_weights_of_one_process(cluster, tmp_path, points, kind):
    if kind == "torch":
        pytest.importorskip("torch")
        pytest.importorskip("sklearn")
    data = points if kind == "toy" else "sklearn:digits"
    entries, weights = alone(tmp_path, kind, data)
    assert finished(built(cluster, tmp_path, kind, data)) == entries
    assert files(tmp_path / "store") == weights
    done = [line.split()[2] for line in (tmp_path / "log").read_text().splitlines()]
    assert len(done) == len(set(done)) == len(entries), "no job was done twice"


def test_data_and_weights_travel_to_nodes_that_do_not_have_them(cluster, tmp_path):
    """No file stands behind this data set, and weights reach every node's own folder."""
    drivers.preloaded("elsewhere")
    entries, _ = alone(tmp_path, "toy", "elsewhere")
    assert finished(built(cluster, tmp_path, "toy", "elsewhere")) == entries
    owner = entries[0]["weights"]
    laid = [cluster.cache(node) for node in cluster.nodes if (cluster.cache(node) / owner).is_file()]
    assert laid, "copies of the owner need his weights"
    for folder in laid:
        assert folder.stat().st_mode & 0o077 == 0, "nobody else may put models there"
        assert (folder / owner).read_bytes() == (tmp_path / "alone" / owner).read_bytes()


# --- what a unit finds on its node


def test_workers_have_one_thread_and_the_callers_folder(cluster, tmp_path):
    program = f"""
import os; os.chdir({str(tmp_path)!r})
from jobs_on_nodes import Look
from pathlib import Path
from minutia.study.ray_engine import RayEngine
with RayEngine({cluster.address!r}, gpus=0.5) as engine:
    units = [[Look(n)] for n in range(6)]
    found = [made[0].value for _, made in engine.run(Path({str(tmp_path)!r}), units)] + [engine.workers]
"""
    *looks, workers = call(cluster, program)
    assert workers == 2 and sorted(look["number"] for look in looks) == list(range(6))
    for look in looks:
        assert look["threads"] == ["1", "1", "1"] and look["folder"] == str(tmp_path)
        assert look["device"] is None, "no GPU in this cluster"
        assert look["root"].endswith(cluster.cache(cluster.nodes[0]).name)
    assert len({look["node"] for look in looks}) == 2, "both nodes work"


# --- errors


def test_errors_come_back_as_themselves(cluster, tmp_path):
    program = f"""
import inspect, sys, types
from pathlib import Path
from jobs_on_nodes import Fail
from minutia.core.errors import FileError
from minutia.storage.models import ModelStore
from minutia.study.ray_engine import RayEngine
from minutia.study.work import perform
found = []
store = ModelStore(Path({str(tmp_path / "store")!r}))
with RayEngine({cluster.address!r}) as engine:
    for how in ("file", "disk", "missing", "exit"):
        try:
            perform(store, [Fail(how)], engine)
        except Exception as error:
            found.append([type(error).__name__, str(error)])
    sys.modules["only_here"] = module = types.ModuleType("only_here")
    exec(inspect.getsource(sys.modules["jobs_on_nodes"]).replace('f"fail', 'f"only here'), module.__dict__)
    try:
        perform(store, [module.Fail("")], engine)
    except Exception as error:
        found.append([type(error).__name__, str(error)])
    found.append(perform(store, [Fail("value"), Fail("")], engine, tolerant=True))
"""
    file, disk, missing, died, unknown, values = call(cluster, program)
    assert file == ["FileError", "no luck"] and disk == ["OSError", "no luck"]
    assert missing[0] == "FileError" and "build the model again" in missing[1]
    assert died[0] == "ModelError" and "run the same command again, finished models are kept" in died[1]
    assert unknown[0] == "ModelError" and "No module named 'only_here'" in unknown[1] and len(unknown[1]) < 400
    assert values == [{"failed": "ValueError: no luck", "error": "ValueError"}, {"done": 1}], (
        "the engine goes on after all of them"
    )


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "nonsense", "head.invalid:6379"])
def test_an_address_without_a_cluster_is_one_sentence(address, tmp_path):
    from minutia.core.errors import UsageError
    from minutia.study.ray_engine import RayEngine

    address = address.format(port=clusters.free_port())
    with pytest.raises(UsageError, match=f"a Ray cluster at {address}, got .*start one with 'ray start --head'"):
        RayEngine(address)


@pytest.mark.parametrize("gpus", [-1, 1.5])
def test_a_share_of_a_gpu_that_cannot_be(gpus):
    from minutia.core.errors import UsageError
    from minutia.study.ray_engine import RayEngine

    with pytest.raises(UsageError, match="a share of a GPU"):
        RayEngine(gpus=gpus)


# --- nodes that die and join


def test_a_node_that_dies_in_the_middle_and_one_that_joins(tmp_path, points):
    entries, weights = alone(tmp_path, "toy", points)
    with clusters.Cluster() as cluster:
        second = cluster.join()
        child = built(cluster, tmp_path, "toy", points)
        doing = busy(second, tmp_path / "log")
        clusters.kill(second)
        cluster.join()
        assert finished(child) == entries
        assert files(tmp_path / "store") == weights
    done = Counter(line.split()[2] for line in (tmp_path / "log").read_text().splitlines())
    assert all(done[digest] == 2 for digest in doing), "what the node was doing was done again"
    assert set(done) == set(digests(entries, points))
    assert all(done[digest] == 1 for digest in done if digest not in doing), "and nothing else"


def busy(node, log, within=60.0):
    """Wait until that node does a unit; the digests of its jobs."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        here = clusters.workers(node)
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        if doing := {digest for _, process, digest in lines if int(process) in here}:
            return doing
        time.sleep(0.05)
    raise AssertionError("the second node never got any work")


def digests(entries, data):
    owner = drivers.zoo.Entry.from_plain(entries[0])
    return [job.digest for job in drivers.tasks_of("toy", data, "") + drivers.tasks_of("toy", data, "", parent=owner)]
