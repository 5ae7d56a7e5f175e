"""Benign runs: the same model, whatever the batch, the threads and the runtime; and other number formats."""

import numpy as np
import pytest

from minutia.checks import toy_bench
from minutia.core.access import Access
from minutia.core.errors import UsageError
from minutia.core.probe import numbered
from minutia.models.metered import Metered
from minutia.models.onnx import OnnxModel
from minutia.models.reruns import RUNS, Rerun, as_onnx, reruns
from minutia.models.torch import TorchModel
from minutia.study.architectures import digits_cnn

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def digits():
    torch.manual_seed(0)
    images = np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32)
    return TorchModel(digits_cnn()), images


class Counting:
    """Passes questions on and notes the size of every batch."""

    def __init__(self, model):
        self.spec, self.card, self.access, self._model, self.batches = model.spec, model.card, model.access, model, []

    def ask(self, probes):
        self.batches.append(len(probes))
        return self._model.ask(probes)


@pytest.mark.parametrize(
    ("rows", "before", "batches"), [(1, 0, [1] * 5), (3, 2, [3, 3, 1]), (100, 7, [12]), (5, 0, [5])]
)
def test_batches_are_as_told_and_answers_in_order(rows, before, batches):
    owner, inputs = toy_bench().owner, toy_bench().material.inputs
    counting = Counting(owner)
    run = Rerun(counting, "somehow", rows=rows, before=before, filler=inputs[10:12])
    probes = numbered(inputs[:5], {})
    assert np.allclose(run.ask(probes).logits, owner.ask(probes).logits, atol=1e-5)
    assert counting.batches == batches
    assert (run.card.root, run.card.recipe, run.card.parents) == (owner.card.root, "somehow", (owner.card.id,))


def test_a_torch_model_runs_in_all_ways_with_the_same_answers(digits):
    model, images = digits
    made = reruns(model, images, np.random.default_rng(1))
    probes, threads = numbered(images, {}), torch.get_num_threads()
    own = model.ask(probes).logits
    assert len(made) == RUNS
    assert {run.card.recipe for run in made} >= {"in torch with 1 thread", "in torch without oneDNN"}
    for run in made[:24]:
        assert np.abs(run.ask(probes).logits - own).max() < 1e-5
    assert torch.get_num_threads() == threads


def test_the_same_seed_gives_the_same_runs(digits):
    model, images = digits
    one, two = (reruns(model, images, np.random.default_rng(4), count=9) for _ in range(2))
    assert [run.card for run in one] == [run.card for run in two]


def test_an_exported_model_answers_alike(digits):
    pytest.importorskip("onnxruntime")
    model, images = digits
    exported = as_onnx(model, images[:2])
    assert exported is not None
    answers = OnnxModel(exported).ask(numbered(images, {}))
    assert np.abs(answers.logits - model.ask(numbered(images, {})).logits).max() < 1e-5
    recipes = {run.card.recipe for run in reruns(model, images, np.random.default_rng(0))}
    assert "in ONNX Runtime with 2 threads" in recipes
    of_file = reruns(OnnxModel(exported), images, np.random.default_rng(0), count=4)
    assert {run.card.recipe for run in of_file} == {"in ONNX Runtime with 1 thread", "in ONNX Runtime with 2 threads"}


def test_a_module_that_cannot_be_exported_runs_without_onnx(digits):
    class Sorts(torch.nn.Module):
        def forward(self, x):
            if x.sum() > 1e9:
                raise ValueError
            return torch.from_numpy(x.flatten(1)[:, :3].numpy().copy())

    made = reruns(TorchModel(Sorts()), digits[1], np.random.default_rng(0), count=12)
    assert all("torch" in run.card.recipe or "ONNX" in run.card.recipe for run in made)
    assert made[0].ask(numbered(digits[1], {})).logits.shape == (20, 3)


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("half", {"with weights in half", "computed in half"}),
        ("bfloat16", {"with weights in bfloat16", "computed in bfloat16"}),
        ("int8", {"with weights in int8 per tensor", "with weights in int8 per channel"}),
    ],
)
def test_allowed_formats_are_ways_of_their_own(digits, name, ways):
    model, images = digits
    made = reruns(model, images, np.random.default_rng(0), allow=[name])
    assert {run.card.recipe for run in made} >= ways
    own = model.ask(numbered(images, {})).logits
    for way in ways:
        run = next(r for r in made if r.card.recipe == way)
        off = np.abs(run.ask(numbered(images, {})).logits - own).max()
        assert 1e-7 < off < 0.05


def test_int8_weights_have_255_levels():
    owner = toy_bench().owner
    made = reruns(owner, toy_bench().material.inputs, np.random.default_rng(0), allow=["int8"], count=3)
    weights = dict(made[1]._model.tensors())["w0"]
    step = np.abs(weights).max() / 127
    assert np.allclose(weights / step, np.rint(weights / step), atol=1e-3)


def test_formats_need_a_name_and_open_weights():
    owner, inputs = toy_bench().owner, toy_bench().material.inputs
    with pytest.raises(UsageError, match=r"expected number formats \(half, bfloat16, int8, int4\), got 'float8'"):
        reruns(owner, inputs, np.random.default_rng(0), allow=["float8"])
    with pytest.raises(UsageError, match="expected a model with open weights"):
        reruns(Metered(owner, only=Access.LABELS), inputs, np.random.default_rng(0), allow=["half"])
