"""Boundary search: halving, normals, the way closer; owners that give labels only, an ONNX file among them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia import api, catalog
from minutia.checks import check_method, toy_bench
from minutia.core.access import Access
from minutia.core.answers import Answers
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.methods.classifiers import boundary_search
from minutia.methods.classifiers.boundary_search import (
    DIRECTIONS,
    EACH,
    HALVINGS,
    BoundarySearch,
    Line,
    closer,
    distances,
    halved,
    normals,
)
from minutia.models.callable import CallableModel
from minutia.storage.data import Dataset

SMALL = BoundarySearch(probes=20, budget=20_000, oversample=6)


def box(function, name="box"):
    """A model that names classes and nothing else, and counts its questions."""

    class Box:
        spec, card, access = name, ModelCard(name, name), Access.LABELS
        asked = 0

        def ask(self, probes):
            self.asked += len(probes)
            return Answers.from_labels(function(probes.array))

    return Box()


def sides(x):
    """Class 1 beyond the plane where the first two coordinates sum to 1, class 2 where the last is above 0.8."""
    x = x.reshape(len(x), -1)
    return np.where(x[:, -1] > 0.8, 2, (x[:, 0] + x[:, 1] > 1).astype(int))


def line(first, goal, function=sides, left=10**6):
    return Line(box(function), np.array(first), np.array(goal), left)


@given(st.integers(0, 10**6))
def test_halving_ends_just_across(seed):
    rng = np.random.default_rng(seed)
    inside, outside = rng.uniform(0, 0.45, (5, 3)), rng.uniform(0.55, 0.75, (5, 3))
    found = halved(line([0] * 5, [-1] * 5), inside, outside)
    assert (sides(found) == 1).all()
    before = found - 2.0**-HALVINGS * 1.01 * (outside - inside)
    assert (sides(before) == 0).all()


def test_a_goal_is_the_class_that_begins_not_the_first_other_one():
    """On the way from class 0 to class 2 lies class 1."""
    inside, outside = np.array([[0.1, 0.1, 0.1]] * 2), np.array([[0.9, 0.9, 0.9]] * 2)
    found = halved(line([0, 0], [-1, 2]), inside, outside)
    assert sides(found).tolist() == [1, 2]


def test_points_without_an_answer_are_not_across():
    silent = line([0, 0], [-1, 1], lambda x: np.full(len(x), -1))
    assert not silent.crossed(np.zeros((2, 3))).any() and silent.left == 10**6 - 2


def test_the_normal_of_a_plane_is_found_from_labels():
    points = np.array([[0.5, 0.5, 0.3]] * 40) + 1e-4
    found = normals(line([0] * 40, [-1] * 40), points, np.full(40, 0.4), np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    along = found @ [0.5**0.5, 0.5**0.5, 0]
    assert along.mean() > 0.85 and along.min() > 0.3


def test_points_only_ever_come_closer_and_stay_across():
    rng = np.random.default_rng(1)
    starts = rng.uniform(0, 0.4, (30, 3))
    between = line([0] * 30, [-1] * 30)
    points = halved(between, starts, np.array([[0.95, 0.2, 0.2]] * 30))
    nearest = (1 - starts[:, :2].sum(axis=1)) / 2**0.5
    for _ in range(12):
        moved = closer(between, starts, points, (0.0, 1.0), rng)
        assert (distances(moved, starts) <= distances(points, starts)).all() and (sides(moved) == 1).all()
        points = moved
    assert (distances(points, starts) < 1.15 * nearest + 0.02).mean() > 0.9


@pytest.fixture(scope="module")
def bench():
    return toy_bench()


@pytest.fixture(scope="module")
def enrolled(bench):
    return SMALL.extract(bench.owner, bench.material, seed=3)


@pytest.mark.parametrize("budget", [EACH * 20, 1000, 20_000])
def test_the_budget_is_kept(bench, budget):
    owner = box(lambda x: bench.owner.ask(numbered(x, {})).labels)
    method = BoundarySearch(probes=20, budget=budget, oversample=6)
    points, _ = method.search(owner, bench.material, np.random.default_rng(0))
    assert owner.asked + boundary_search.CHECKS * len(points) <= budget
    assert len(points) == min(120, budget // EACH)
    rounds = (owner.asked - 120 - HALVINGS * len(points)) / ((DIRECTIONS + HALVINGS + 1) * len(points))
    assert budget < 20_000 or rounds == 4


def test_what_is_left_of_the_budget_brings_points_closer_to_where_innocents_disagree(bench):
    def matched(budget):
        method = BoundarySearch(probes=40, budget=budget, oversample=4)
        fp = method.extract(bench.owner, replace(bench.material, unrelated=[], derived=[]), seed=1)
        return np.mean([m.ask(fp.probes).labels == fp.answers.labels for m in bench.innocents])

    assert matched(60_000) < matched(EACH * 160) - 0.05


def test_every_probe_is_across_and_says_so_after_storage(bench, enrolled):
    assert len(np.unique(enrolled.probes.array, axis=0)) == 20
    for row in range(20):
        alone = bench.owner.ask(enrolled.probes.take([row])).labels
        assert alone == enrolled.answers.labels[row]
    assert len(set(enrolled.answers.labels)) >= 4


def test_a_wider_margin_leads_further_across(bench):
    def margins(margin):
        method = replace(SMALL, margin=margin)
        points, _ = method.search(bench.owner, bench.material, np.random.default_rng(0))
        top = np.sort(bench.owner.linearise(points)[0], axis=1)
        return float(np.median(top[:, -1] - top[:, -2]))

    assert margins(0.0) < margins(0.2) < margins(0.6)


def test_screening_drops_what_innocents_match(bench, enrolled):
    def matched(fp):
        return np.mean([m.ask(fp.probes).labels == fp.answers.labels for m in bench.innocents])

    blind = SMALL.extract(bench.owner, replace(bench.material, unrelated=[]), seed=3)
    assert matched(enrolled) < 0.8 * matched(blind)
    assert not blind.spent and len(enrolled.spent) == len(bench.material.unrelated)


def test_an_owner_of_labels_only_convicts_his_copy_and_no_innocent(bench):
    """The same fingerprint as with everything shown: nothing but labels was looked at."""
    owner = box(lambda x: bench.owner.ask(numbered(x, {})).labels)
    method = BoundarySearch(probes=40, budget=40_000, oversample=6)
    fp = method.extract(owner, bench.material, seed=3)
    assert np.array_equal(fp.probes.array, method.extract(bench.owner, bench.material, seed=3).probes.array)
    null = Null("unrelated", tuple(method.asked(m, fp.probes) for m in bench.innocents))
    copy = bench.owner.rebuilt({n: w * np.float32(1.01) for n, w in bench.owner.tensors()})
    assert method.verify(fp, copy, null, alpha=0.1).outcome == "match"
    rest = Null("unrelated", null.observations[1:])
    assert method.verify(fp, bench.innocents[0], rest, alpha=0.1).outcome != "match"


def test_any_function_can_be_enrolled(bench):
    called = CallableModel(lambda x: bench.owner.ask(numbered(x, {})).labels, "mine", output="labels")
    fp = SMALL.extract(called, bench.material, seed=3)
    assert fp.answers.scores is None and len(fp.probes) == 20


def test_an_onnx_file_can_be_enrolled(bench, tmp_path):
    """A file gives no gradients; what it answers decides, so the weights behind it give the same fingerprint."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    (tmp_path / "owner.onnx").write_bytes(_exported(onnx, bench.owner))
    owner = catalog.model(f"onnx:{tmp_path / 'owner.onnx'}")
    assert Access.GRADIENTS not in owner.access
    with pytest.raises(UsageError, match="gradients for ipguard"):
        catalog.method("ipguard").extract(owner, bench.material)
    fp = SMALL.extract(owner, bench.material, seed=3)
    null = Null("unrelated", tuple(SMALL.asked(m, fp.probes) for m in bench.innocents))
    verdict = SMALL.verify(fp, bench.owner, null, alpha=0.1)
    assert verdict.outcome == "match" and verdict.score >= 0.95


def test_an_owner_without_gradients_is_told_which_methods_are_left(bench):
    """Whoever enrols by the api is told by name; methods that need more are not among them."""
    owner = box(lambda x: bench.owner.ask(numbered(x, {})).labels)
    material = bench.material
    data = Dataset("toy", material.inputs, material.labels, *material.held_out, (0.0, 1.0), 256)
    with pytest.raises(UsageError, match=r"use .*boundary_search.*natural_errors.*, which need no more") as refused:
        api.extract(owner, data, catalog.method("trajectories"))
    told = str(refused.value).partition(": use ")[2]
    assert not any(name in told for name in ("ipguard", "stretched", "sensitive_samples", "trigger_set"))


def _exported(onnx, model):
    """The toy network as an ONNX graph."""
    h, weights = onnx.helper, dict(model.tensors())
    nodes = [
        h.make_node("Flatten", ["x"], ["flat"]),
        h.make_node("Gemm", ["flat", "w0", "b0"], ["h0"]),
        h.make_node("Relu", ["h0"], ["r0"]),
        h.make_node("Gemm", ["r0", "w1", "b1"], ["logits"]),
    ]
    graph = h.make_graph(
        nodes,
        "net",
        [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 4, 4])],
        [h.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 5])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8).SerializeToString()


def test_an_owner_of_one_class_is_one_sentence(bench):
    with pytest.raises(ModelError, match="names 2 or more classes on the given data, got 1"):
        SMALL.extract(box(lambda x: np.zeros(len(x), int)), replace(bench.material, controls={}))


def test_too_few_points_are_one_sentence():
    """Two grey levels: all points between black and white are stored as these."""
    inputs = np.stack([np.zeros((1, 4, 4)), np.ones((1, 4, 4))]).astype(np.float32)
    owner = box(lambda x: (x.reshape(len(x), -1).mean(axis=1) > 0.7).astype(int))
    method = BoundarySearch(probes=20, budget=EACH * 20)
    with pytest.raises(ModelError, match=r"20 boundary points that survive storage, got [12]:"):
        method.extract(owner, Material(inputs, np.arange(2), levels=2))


@pytest.mark.parametrize(
    "wrong",
    [{"probes": 1}, {"oversample": 0}, {"margin": 1.5}, {"margin": float("nan")}, {"innocent": -1.0}, {"budget": 500}],
)
def test_parameters_that_cannot_work_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        BoundarySearch(**wrong)


def test_text_is_refused(bench):
    with pytest.raises(UsageError, match="image or tabular data for boundary_search, got text"):
        SMALL.extract(bench.owner, replace(bench.material, content="text"))


def test_the_contract_is_kept_on_a_small_budget():
    check_method(BoundarySearch(probes=12, budget=2000, oversample=3))
