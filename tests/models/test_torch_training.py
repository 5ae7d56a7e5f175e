"""Training of torch models: known steps, schedules, heads, steering, and many small models at a time."""

import os

import numpy as np
import pytest

from minutia.core.errors import ModelError, UsageError
from minutia.core.model import JointlyTrainable, Plan, Steer, TrainableModel
from minutia.core.probe import numbered
from minutia.models.torch import TorchModel, open_model
from minutia.models.toy import ToyClassifier

torch = pytest.importorskip("torch")
PLACE = "minutia.study.architectures"
RNG = np.random.default_rng(0)
INPUTS = RNG.random((70, 1, 8, 8), dtype=np.float32)
LABELS = RNG.integers(0, 10, 70)
FRESH = Plan(2, reset="everything")


def opened(name="digits_mlp", rest=""):
    torch.manual_seed(3)
    return open_model(f"{PLACE}:{name}{rest}")


def weights(model):
    return dict(model.tensors())


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True))


def linear(kind, matrix):
    """One linear layer (classes, inputs) with a bias of 0, as a toy or in torch."""
    if kind == "toy":
        return ToyClassifier({"w0": np.transpose(matrix), "b0": np.zeros(len(matrix))})
    module = torch.nn.Linear(len(matrix[0]), len(matrix))
    with torch.no_grad():
        module.weight.copy_(torch.tensor(matrix))
        module.bias.zero_()
    return TorchModel(module)


def with_bias(model):
    """Its weights and bias as one matrix (classes, inputs + 1)."""
    first, second = weights(model).values()
    return np.column_stack([first.T if isinstance(model, ToyClassifier) else first, second])


# --- optimisers and schedules


@pytest.mark.parametrize("kind", ["torch", "toy"])
def test_two_steps_of_sgd_are_those_computed_by_hand(kind):
    start, x = [[0.5, -0.25], [0.0, 1.0]], np.array([1.0, 2.0, 1.0])  # the last input is that of the bias
    expected, speed = np.column_stack([start, [0, 0]]), np.zeros((2, 3))
    for _ in range(2):
        p = np.exp(expected @ x) / np.exp(expected @ x).sum()
        speed = 0.9 * speed + np.outer(p - np.array([0, 1]), x) + 0.01 * expected
        expected = expected - 0.1 * speed
    plan = Plan(2, 1, 0.1, weight_decay=0.01, optimiser="sgd", momentum=0.9)
    found = linear(kind, start).trained(x[None, :2], np.array([1]), plan, 0)
    np.testing.assert_allclose(with_bias(found), expected, rtol=1e-5)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_toy_and_torch_take_the_same_steps(optimiser):
    plan = Plan(3, 8, 0.05, weight_decay=0.1, optimiser=optimiser, schedule="cosine", temperature=2.0)
    x, y = np.random.default_rng(1).random((8, 2), dtype=np.float32), np.arange(8) % 2
    toy, other = (linear(kind, [[0.3, -0.2], [0.1, 0.4]]).trained(x, y, plan, 0) for kind in ("toy", "torch"))
    np.testing.assert_allclose(with_bias(toy), with_bias(other), atol=1e-5)


@pytest.mark.parametrize("model", [opened(), ToyClassifier.fresh((64, 6, 10))], ids=["torch", "toy"])
def test_a_schedule_lowers_the_rate_epoch_by_epoch(model):
    def after(schedule, epochs):
        return model.trained(INPUTS, LABELS, Plan(epochs, schedule=schedule), 1)

    assert same(after("cosine", 1), after("constant", 1))  # the first epoch has the full rate
    assert not same(after("cosine", 2), after("constant", 2))
    moved = [
        np.abs(weights(after(s, 12))[n] - w).sum() for s in ("constant", "steps") for n, w in weights(model).items()
    ]
    assert sum(moved[len(moved) // 2 :]) < sum(moved[: len(moved) // 2])


@pytest.mark.parametrize("model", [opened(), ToyClassifier.fresh((64, 6, 10))], ids=["torch", "toy"])
def test_a_model_that_diverges_is_a_result_and_no_error(model):
    wild = model.trained(INPUTS, LABELS, Plan(4, learning_rate=1e30, optimiser="sgd"), 0)
    assert not all(np.isfinite(w).all() for w in weights(wild).values())
    assert (wild.ask(numbered(INPUTS, {})).labels == -1).all()
    again = wild.trained(INPUTS, LABELS, Plan(1), 0)
    assert again.card.parents == (wild.card.id,)


def test_only_the_last_layer_is_trained_where_the_plan_says_so():
    model = opened("digits_cnn")
    copy = model.trained(INPUTS, LABELS, Plan(1, layers="last", optimiser="sgd"), 0)
    changed = {n for n, w in weights(model).items() if not np.array_equal(w, weights(copy)[n])}
    assert changed == {"7.weight", "7.bias"}


# --- another number of classes


@pytest.mark.parametrize("layers", ["all", "last"])
def test_a_new_head_has_so_many_outputs_and_opens_again_from_its_spec(layers):
    model = opened("digits_cnn")
    plan = Plan(1, layers=layers, classes=4)
    copy = model.trained(INPUTS, LABELS % 4, plan, 5)
    assert copy.ask(numbered(INPUTS, {})).scores.shape == (70, 4)
    assert copy.spec == f"torch:{PLACE}:digits_cnn?classes=4" and copy.card.parents == (model.card.id,)
    kept = {n for n, w in weights(model).items() if n[0] != "7" and np.array_equal(w, weights(copy)[n])}
    assert (len(kept) == 6) == (layers == "last")
    again = open_model(copy.spec.removeprefix("torch:")).rebuilt(weights(copy))
    assert again.card.id == copy.card.id


def test_the_new_head_is_what_is_trained_where_other_layers_were_written_down_behind_it():
    class Turned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = torch.nn.Linear(12, 10), torch.nn.Conv2d(1, 3, 5, stride=2)

        def forward(self, x):
            return self.head(self.body(x).relu().flatten(1))

    model = TorchModel(Turned(), factory=Turned)
    copy = model.trained(INPUTS, LABELS % 4, Plan(3, layers="last", classes=4, learning_rate=0.1), 5)
    drawn = model.trained(INPUTS, LABELS % 4, Plan(0, layers="last", classes=4), 5)
    kept = {n for n, w in weights(copy).items() if np.array_equal(w, weights(drawn)[n])}
    assert kept == {"body.weight", "body.bias"}


def test_a_copy_with_other_classes_keeps_them_in_its_own_copies():
    copy = opened().trained(INPUTS, LABELS % 4, Plan(1, classes=4), 5)
    for plan in (FRESH, Plan(1)):
        child = copy.trained(INPUTS, LABELS % 4, plan, 1)
        assert child.ask(numbered(INPUTS[:2], {})).scores.shape == (2, 4) and child.spec == copy.spec


def test_weights_are_read_into_the_new_head(tmp_path):
    from safetensors.numpy import save_file

    copy = opened().trained(INPUTS, LABELS % 4, Plan(1, classes=4), 5)
    save_file(weights(copy), tmp_path / "w.safetensors")
    found = opened(rest=f"?classes=4&weights={tmp_path / 'w.safetensors'}")
    assert found.card.id == copy.card.id
    third = found.trained(INPUTS, LABELS % 3, Plan(1, classes=3), 5)
    assert third.spec == f"torch:{PLACE}:digits_mlp?classes=3"  # the file has other classes and is not named any more


def test_a_toy_gets_a_new_head_too():
    model = ToyClassifier.fresh((64, 6, 10))
    copy = model.trained(INPUTS, LABELS % 4, Plan(1, layers="last", classes=4), 5)
    assert copy.spec == "toy:mlp?sizes=64-6-4" and weights(copy)["w1"].shape == (6, 4)
    assert np.array_equal(weights(copy)["w0"], weights(model)["w0"])


def test_what_has_no_linear_layer_gets_no_head():
    model = TorchModel(torch.nn.Sequential(torch.nn.Conv2d(1, 3, 8), torch.nn.Flatten()))
    with pytest.raises(UsageError, match="linear layer"):
        model.trained(INPUTS, LABELS % 4, Plan(1, classes=4), 0)
    with pytest.raises(UsageError, match="whole number of at least 2"):
        opened(rest="?classes=1")


# --- steering


@pytest.mark.parametrize("model", [opened("digits_cnn"), ToyClassifier.fresh((64, 6, 5, 10))], ids=["torch", "toy"])
def test_steering_pulls_each_group_to_its_targets(model):
    for group in model.units():
        targets = np.full((len(INPUTS), group.count), 0.7, np.float32)

        def distance(copy, group=group, targets=targets):
            return float(np.square(copy.features(INPUTS)[group.name] - targets).mean())

        plan = Plan(15, learning_rate=5e-3)
        steered, free = (
            model.trained(INPUTS, LABELS, plan, 1, steer=steer) for steer in (Steer(group.name, targets, 100.0), None)
        )
        assert distance(steered) < 0.5 * distance(free), group.name
        assert same(free, model.trained(INPUTS, LABELS, plan, 1, steer=Steer(group.name, targets, 0.0)))


@pytest.mark.parametrize("model", [opened(), ToyClassifier.fresh((64, 6, 10))], ids=["torch", "toy"])
def test_steering_to_what_is_not_there_is_refused(model):
    group = model.units()[0]
    for steer in (
        Steer("nobody", np.zeros((70, group.count))),
        Steer(group.name, np.zeros((70, group.count + 1))),
        Steer(group.name, np.zeros((3, group.count))),
    ):
        with pytest.raises(UsageError, match="expected"):
            model.trained(INPUTS, LABELS, Plan(1), 0, steer=steer)


# --- many at a time


def test_dense_networks_train_together_and_others_do_not():
    dense, conv = opened(), opened("digits_cnn")
    assert isinstance(dense, JointlyTrainable) and isinstance(dense, TrainableModel)
    assert dense.joint and not conv.joint
    layers = [torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3)]
    assert not TorchModel(torch.nn.Sequential(*layers)).joint
    normed = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.BatchNorm1d(8))
    assert not TorchModel(normed).joint
    counting = torch.nn.Linear(4, 3)
    counting.register_buffer("seen", torch.zeros(1))
    assert not TorchModel(counting).joint
    frozen = torch.nn.Linear(4, 3).requires_grad_(False)
    assert not TorchModel(frozen).joint
    trained_by_owner = TorchModel(dense.module, trainer=lambda module, *_: module)
    assert not trained_by_owner.joint


@pytest.mark.parametrize(("rows", "batch"), [(70, 16), (65, 16), (50, 7), (30, 1)])
@pytest.mark.parametrize("classes", [0, 3, 13])
def test_a_seeds_weights_do_not_depend_on_the_company(rows, batch, classes):
    model, plan = opened(), Plan(2, batch, reset="everything", weight_decay=0.1, schedule="cosine", classes=classes)
    x, y = INPUTS[:rows], LABELS[:rows] % 3
    groups = ([4], [0, 4], [4, 0], [1, 2, 4], [1, 4, 2], [0, 1, 4, *range(5, 18)], [*range(5, 13), 4])
    found = [model.trained_many(x, y, plan, seeds)[seeds.index(4)].card for seeds in groups]
    assert {card.id for card in found} == {found[0].id}


def test_together_is_the_same_training_as_alone():
    model = opened()
    alone = [model.trained(INPUTS, LABELS, FRESH, seed) for seed in (7, 8)]
    together = model.trained_many(INPUTS, LABELS, FRESH, (7, 8))
    for one, other in zip(alone, together, strict=True):
        for name, value in weights(one).items():
            np.testing.assert_allclose(value, weights(other)[name], atol=1e-5)
        assert other.card.root == other.card.id and other.spec == model.spec
    assert alone[0].card.id != together[0].card.id, "the stack was not used"
    assert len({m.card.root for m in together}) == 2


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("digits_cnn", FRESH),
        ("digits_mlp", Plan(1)),
        ("digits_mlp", Plan(1, reset="everything", optimiser="sgd")),
        ("digits_mlp", Plan(1, reset="everything", temperature=2.0)),
    ],
)
def test_what_cannot_share_a_pass_is_trained_alone(name, plan):
    model = opened(name)
    found = model.trained_many(INPUTS, LABELS, plan, (1, 2))
    assert [m.card.id for m in found] == [model.trained(INPUTS, LABELS, plan, s).card.id for s in (1, 2)]
    assert model.trained_many(INPUTS, LABELS, plan, ()) == []


def test_a_forward_pass_that_branches_on_its_data_is_trained_alone():
    class Branching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, 10)

        def forward(self, x):
            x = x.flatten(1)
            return self.layer(x) if self.layer.weight.sum() > 1e9 else self.layer(-x)

    model = TorchModel(Branching(), factory=Branching)
    assert model.joint
    (found,) = model.trained_many(INPUTS, LABELS, FRESH, (3,))
    assert found.card.id == model.trained(INPUTS, LABELS, FRESH, 3).card.id


def test_embeddings_train_together():
    class Bag(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = torch.nn.Embedding(20, 6), torch.nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.table(x.long()).mean(1))

    model, tokens = TorchModel(Bag(), factory=Bag), np.random.default_rng(1).integers(0, 20, (50, 7)).astype(np.float32)
    labels = (tokens.mean(axis=1) > 9.5).astype(int)
    plan = Plan(2, reset="everything")
    (one,) = model.trained_many(tokens, labels, plan, (3,))
    for name, value in weights(model.trained(tokens, labels, plan, 3)).items():
        np.testing.assert_allclose(value, weights(one)[name], atol=1e-5)
    assert model.joint and one.card.id == model.trained_many(tokens, labels, plan, (1, 2, 3))[2].card.id


def test_bad_data_is_one_sentence_for_many_as_for_one():
    for model in (opened(), opened("digits_cnn")):
        with pytest.raises(ModelError, match=r"expected torch.* to train"):
            model.trained_many(INPUTS, LABELS + 5, FRESH, (1, 2))
        with pytest.raises(ModelError, match=r"expected torch.* to train"):
            model.trained(INPUTS[:, :, :3], LABELS, FRESH, 1)


def test_training_leaves_the_random_numbers_and_threads_of_others_alone():
    torch.manual_seed(11)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    opened_at = opened()
    torch.set_rng_state(state)
    opened_at.trained_many(INPUTS, LABELS, FRESH, (1, 2))
    opened_at.trained(INPUTS, LABELS, FRESH, 1)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


# --- where to train


def test_the_device_is_named_by_the_environment(monkeypatch):
    model = opened()
    before = model.trained(INPUTS, LABELS, Plan(1), 1).card.id
    monkeypatch.setitem(os.environ, "MINUTIA_DEVICE", "cpu")
    assert model.trained(INPUTS, LABELS, Plan(1), 1).card.id == before
    monkeypatch.setitem(os.environ, "MINUTIA_DEVICE", "no-such-device")
    with pytest.raises(ModelError, match="device"):
        model.trained(INPUTS, LABELS, Plan(1), 1)
