"""Hidden units of torch modules: the groups that are known, the laws that hold for them, and what is left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minutia import checks
from minutia.checks.models import hidden_units_have_no_order
from minutia.core.access import Access
from minutia.core.errors import ModelError, UsageError
from minutia.core.model import Plan, Steer
from minutia.core.probe import numbered
from minutia.core.units import LayeredModel, Norm, Slot, permuted, rescaled, without
from minutia.models.torch import TorchModel
from minutia.models.torch_units import watch
from networks import IMAGES, F, cnn, function, gated, images, lively, mlp, mobile, nn, norms_first, resnet, torch

INNER = {"stage1.0.conv1": 4, "stage1.1.conv1": 4, "stage2.0.conv1": 8, "stage2.1.conv1": 8}
KNOWN = {
    "mlp": (mlp(), {"1": 12, "4": 9}),
    "mlp, tanh": (mlp(nn.Tanh), {"1": 12, "4": 9}),
    "mlp, batch norm": (mlp(norm=nn.BatchNorm1d), {"1": 12, "4": 9}),
    "mlp, layer norm": (mlp(norm=nn.LayerNorm), {"1": 12, "4": 9}),
    "mlp, one parameter": (mlp(nn.PReLU), {"1": 12, "4": 9}),
    "cnn": (cnn(), {"0": 6, "4": 8, "9": 10}),
    "cnn, batch norm": (cnn(nn.BatchNorm2d), {"0": 6, "4": 8, "9": 10}),
    "cnn, no bias": (cnn(nn.BatchNorm2d, bias=False), {"0": 6, "4": 8, "9": 10}),
    "cnn, one group": (cnn(lambda width: nn.GroupNorm(1, width)), {"0": 6, "4": 8, "9": 10}),
    "cnn, by instance": (cnn(lambda width: nn.InstanceNorm2d(width, affine=True)), {"0": 6, "4": 8, "9": 10}),
    "resnet": (resnet(), {**INNER, "conv": 4, "stage2.0.conv2": 8}),
    "resnet, padded shortcuts": (resnet("A"), INNER),
    "resnet, norms first": (norms_first(), {"blocks.0.conv1": 4, "blocks.1.conv1": 4, "conv": 4}),
    "mobile": (mobile(), {"0": 6, "6": 8}),
    "gated": (gated(), {"conv": 4, "down": 3}),
    "flatten": (images(lambda m, x: m.c(torch.flatten(F.relu(m.b(F.relu(m.a(x)))), 1))), {"a": 4, "b": 4}),
    "view": (images(lambda m, x: m.c((y := m.b(F.relu(m.a(x)))).view(y.shape[0], -1))), {"a": 4, "b": 4}),
    "view, of the input": (images(lambda m, x: m.c(m.b(m.a(x)).reshape(x.size(0), -1))), {"a": 4, "b": 4}),
    "view, by width": (images(lambda m, x: m.c(m.b(m.a(x)).view(-1, 256))), {"a": 4, "b": 4}),
    "norm after flatten": (
        images(lambda m, x: m.c(m.n(m.b(m.a(x)).flatten(1))), n=nn.BatchNorm1d(256)),
        {"a": 4, "b": 4},
    ),
    "mean of means": (
        images(lambda m, x: m.c(m.b(m.a(x)).flatten(2).mean(-1)), c=nn.Linear(4, 5)),
        {"a": 4, "b": 4},
    ),
    "sum": (function(lambda m, x: m.c(F.relu(m.b(y := F.relu(m.a(x)))) + y)), {"a": 8}),
    "half": (function(lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x)) * 0.5)) - 1)), {"a": 8, "b": 8}),
    "square": (function(lambda m, x: m.c((y := m.b(torch.tanh(m.a(x)))) * y)), {"a": 8, "b": 8}),
    "product": (function(lambda m, x: m.c(F.relu(m.a(x)) * F.relu(m.d(x))), d=nn.Linear(64, 8)), {"a": 8}),
    "dead end": (function(lambda m, x: (m.b(y := m.a(x)), m.c(y))[1]), {"a": 8}),
}
NOT_SCALABLE = {
    *(("mlp, tanh", name) for name in "14"),
    *(("half", name) for name in "b"),
    *(("square", name) for name in "ab"),
    ("product", "a"),
    ("gated", "conv"),
}


def tied():
    module = function(lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x))))))
    module.b.weight = nn.Parameter(module.b.weight.T.contiguous())
    module.d = nn.Linear(8, 8)
    module.d.weight = module.b.weight
    return module


def hooked():
    module = mlp()
    module[1].register_forward_hook(lambda layer, given, made: made.flip(1))
    return module


LEFT_OUT = {
    "concatenation": (function(lambda m, x: m.c(torch.cat([m.a(x)[:, :4], m.b(m.a(x))[:, :4]], 1))), set()),
    "index": (function(lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x)).flip(1))))), {"b"}),
    "parameter": (
        function(lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x)) * m.p))), p=nn.Parameter(torch.arange(8.0))),
        {"b"},
    ),
    "made on the way": (function(lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x)) * torch.arange(8))))), {"b"}),
    "shared layer": (function(lambda m, x: m.c(F.relu(m.b(F.relu(m.b(m.a(x))))))), set()),
    "functional weight": (function(lambda m, x: m.c(F.relu(m.b(F.linear(m.a(x), m.b.weight))))), set()),
    "tied": (tied(), set()),
    "hook": (hooked(), {"4"}),
    "weight norm": (
        function(
            lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x))))), b=nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        ),
        set(),
    ),
    "grouped": (cnn(nn.Identity)[:4].append(nn.Conv2d(6, 8, 3, groups=2)).append(nn.Flatten()), set()),
    "two groups": (images(lambda m, x: m.c(m.n(m.b(m.a(x))).flatten(1)), n=nn.GroupNorm(2, 4)), {"a"}),
    "own parameters": (images(lambda m, x: m.c(m.n(m.b(m.a(x))).flatten(1)), n=nn.PReLU(4)), {"a"}),
    "sum with input": (
        function(lambda m, x: m.c(m.b(m.a(x)) + x), a=nn.Linear(64, 7), b=nn.Linear(7, 64), c=nn.Linear(64, 5)),
        {"a"},
    ),
    "sum with broadcast": (function(lambda m, x: m.c(m.a(x) + m.b(x)), b=nn.Linear(64, 1)), set()),
    "reshape by width, then again": (
        images(
            lambda m, x: m.c(m.b(m.a(x)).view(-1, 4)).view(len(IMAGES), -1, 5).mean(1),
            b=nn.Conv2d(4, 4, 1),
            c=nn.Linear(4, 5),
        ),
        {"a"},
    ),
    "mean of channels": (images(lambda m, x: m.c(m.b(m.a(x)).mean(1).flatten(1)), c=nn.Linear(64, 5)), {"a"}),
    "as many rows as units": (
        images(
            lambda m, x: m.c(m.d(m.b(m.a(x))).flatten(1)), b=nn.Conv2d(4, 8, 1), d=nn.Linear(8, 8), c=nn.Linear(512, 5)
        ),
        {"a"},
    ),
    "sum of unlike": (
        images(
            lambda m, x: m.c((m.b(m.a(x)) + m.d(x)).flatten(1)),
            b=nn.Conv2d(4, 8, 1),
            d=nn.Linear(8, 8),
            c=nn.Linear(512, 5),
        ),
        {"a"},
    ),
    "rows": (images(lambda m, x: m.c(m.d(m.b(m.a(x))).flatten(1)), d=nn.Linear(8, 8)), {"a"}),
    "attention": (
        function(lambda m, x: m.c(m.b(m.a(x)) + m.d(*[m.a(x)[:, None]] * 3)[0][:, 0]), d=nn.MultiheadAttention(8, 2)),
        set(),
    ),
}
NETWORKS = {name: TorchModel(lively(module)) for name, (module, _) in (KNOWN | LEFT_OUT).items()}


def logits(model):
    return model.ask(numbered(IMAGES, {})).logits


def same_function(one, other):
    before, after = logits(one), logits(other)
    np.testing.assert_allclose(after, before, atol=2e-5 * np.ptp(before))


# --- what is found


@pytest.mark.parametrize("name", KNOWN)
def test_the_groups_of_known_networks(name):
    groups = NETWORKS[name].units()
    assert {group.name: group.count for group in groups} == KNOWN[name][1]
    assert {(name, group.name) for group in groups if not group.homogeneous} == {
        n for n in NOT_SCALABLE if n[0] == name
    }


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_not_understood_is_left_out(name):
    assert {group.name for group in NETWORKS[name].units()} == LEFT_OUT[name][1]


def test_slots_of_a_small_network_word_by_word():
    first, last = NETWORKS["mlp"].units()
    assert first.writes == (Slot("1.weight", 0), Slot("1.bias", 0)) and first.reads == (Slot("4.weight", 1),)
    assert last.writes == (Slot("4.weight", 0), Slot("4.bias", 0)) and last.reads == (Slot("6.weight", 1),)


def test_with_a_norm_behind_it_a_layer_carries_no_scale():
    image, flat, dense = NETWORKS["cnn, batch norm"].units()
    assert image.writes == (
        Slot("0.weight", 0, scales=False),
        Slot("0.bias", 0, scales=False),
        Slot("1.weight", 0),
        Slot("1.bias", 0),
        Slot("1.running_mean", 0, scales=False),
        Slot("1.running_var", 0, scales=False),
    )
    assert image.norms == (Norm("1.weight", "1.bias", "1.running_mean", "1.running_var", "0.weight", "0.bias", 1e-5),)
    assert flat.reads == (Slot("9.weight", 1, repeat=16),) and not dense.norms
    assert NETWORKS["cnn, no bias"].units()[0].norms[0].bias == ""


def test_layers_joined_by_additions_are_one_group_and_what_the_head_reads_comes_last():
    *_, stream = NETWORKS["resnet"].units()
    read = [slot.tensor for slot in stream.reads]
    assert read == ["stage2.1.conv1.weight", "head.weight"]
    made = {slot.tensor for slot in stream.writes if slot.tensor.endswith(("conv2.weight", "short.0.weight"))}
    assert made == {"stage2.0.conv2.weight", "stage2.0.short.0.weight", "stage2.1.conv2.weight"}
    assert len(stream.norms) == 3


def test_a_norm_that_is_not_the_only_reader_does_not_fold():
    norms = {group.name: group.norms for group in NETWORKS["resnet, norms first"].units()}
    assert not norms["conv"] and [n.into for n in norms["blocks.0.conv1"]] == ["blocks.0.conv1.weight"]


def test_a_network_that_branches_on_its_data_is_refused():
    model = TorchModel(function(lambda m, x: m.c(m.a(x)) if x.sum() > 0 else m.c(m.b(m.a(x)))))
    with pytest.raises(ModelError, match=r"^expected a module whose graph can be traced .*, got torch:.*branch"):
        model.units()


def test_layers_keep_their_mode_and_no_hook_stays():
    module = lively(cnn(nn.BatchNorm2d)).train()
    module[8].eval()
    with watch(module, "9") as seen:
        made = module(torch.from_numpy(IMAGES))
        assert seen().requires_grad and seen().shape == (6, 10)
    assert made.shape == (6, 5) and module.training and module[1].training and not module[8].training
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_groups_are_those_of_use_also_while_a_module_trains():
    def forward(module, x):
        hidden = F.relu(module.a(x))
        return (module.c(hidden), hidden) if module.training else module.c(hidden)

    assert [group.name for group in TorchModel(function(forward)).units()] == ["a"]
    with watch(function(forward).train(), "a"):
        pass


def test_groups_come_in_the_order_of_their_last_readers():
    assert [g.name for g in NETWORKS["resnet, norms first"].units()] == ["blocks.0.conv1", "blocks.1.conv1", "conv"]
    order = ["stage1.0.conv1", "stage1.1.conv1", "stage2.0.conv1", "conv", "stage2.1.conv1", "stage2.0.conv2"]
    assert [group.name for group in NETWORKS["resnet"].units()] == order


def test_an_unknown_group_cannot_be_watched():
    with pytest.raises(UsageError, match=r"expected a group of hidden units \(1, 4\), got '2'"), watch(mlp(), "2"):
        pass


# --- laws, for every network and every group that is found


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_another_order_is_the_same_function_and_its_inverse_gives_the_bits_back(name, seed):
    model, rng = NETWORKS[name], np.random.default_rng(seed)
    before = dict(model.tensors())
    orders = [(group, rng.permutation(group.count)) for group in model.units()]
    weights = before
    for group, order in orders:
        weights = permuted(weights, group, order)
    same_function(model, model.rebuilt(weights))
    for group, order in orders:
        weights = permuted(weights, group, np.argsort(order))
    assert all(np.array_equal(weights[tensor], before[tensor]) for tensor in before)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_another_scale_is_the_same_function(name, seed):
    model, rng = NETWORKS[name], np.random.default_rng(seed)
    weights = dict(model.tensors())
    scalable = [group for group in model.units() if group.homogeneous]
    for group in scalable:
        weights = rescaled(weights, group, 4 ** rng.uniform(-1, 1, group.count))
    copy = model.rebuilt(weights)
    same_function(model, copy)
    assert not scalable or copy.card.id != model.card.id


@pytest.mark.parametrize("name", [name for name in KNOWN if "layer norm" not in name and "one group" not in name])
def test_units_without_weights_are_silent_and_unheard(name):
    model = NETWORKS[name]
    for group in model.units():
        gone = np.arange(0, group.count, 2)
        weights = without(dict(model.tensors()), group, gone)
        copy = model.rebuilt(weights)
        seen = copy.features(IMAGES)[group.name][:, gone]
        assert name == "half" or not seen.any(), group.name  # there, what is added later is heard by nobody
        for slot in group.reads:  # whatever the readers make of the removed units, nobody hears it
            heard = np.moveaxis(weights[slot.tensor].copy(), slot.axis, 0)
            assert not heard[slot.entries(gone)].any()


def test_removed_units_leave_the_narrower_network():
    model = NETWORKS["cnn, batch norm"]
    group, stay = model.units()[1], np.array([1, 2, 5])
    small = lively(cnn(nn.BatchNorm2d))
    small[4], small[5], small[9] = nn.Conv2d(6, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Linear(3 * 16, 10)
    narrow = dict(model.tensors())
    for slot in (*group.writes, *group.reads):
        narrow[slot.tensor] = narrow[slot.tensor].take(slot.entries(stay), axis=slot.axis)
    small.load_state_dict({n: torch.from_numpy(w.copy()) for n, w in narrow.items()}, strict=False)
    gone = np.setdiff1d(np.arange(8), stay)
    wide = model.rebuilt(without(dict(model.tensors()), group, gone))
    np.testing.assert_allclose(logits(wide), logits(TorchModel(small)), atol=1e-5)


# --- features


def test_features_are_what_a_hand_computes():
    module = NETWORKS["cnn, batch norm"].module
    seen = NETWORKS["cnn, batch norm"].features(IMAGES)
    with torch.no_grad():
        first = module[:4](torch.from_numpy(IMAGES))
        second = module[4:7](first)
        third = module[7:11](second)
    for name, values in {"0": first.mean((2, 3)), "4": second.mean((2, 3)), "9": third}.items():
        np.testing.assert_allclose(seen[name], values.numpy(), atol=1e-6)
        assert seen[name].dtype == np.float32


def test_the_last_reader_of_a_residual_stream_sees_the_sum():
    module = NETWORKS["resnet"].module
    with torch.no_grad():
        x = F.relu(module.bn(module.conv(torch.from_numpy(IMAGES))))
        x = module.stage2(module.stage1(x))
    seen = NETWORKS["resnet"].features(IMAGES)
    assert list(seen)[-1] == "stage2.0.conv2"
    np.testing.assert_allclose(seen["stage2.0.conv2"], x.mean((2, 3)).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_models_with_units_keep_the_contract(name):
    model = NETWORKS[name]
    assert Access.FEATURES in model.access and isinstance(model, LayeredModel)
    hidden_units_have_no_order(checks.Asked(model, numbered(IMAGES, {})))


def test_a_network_keeps_the_whole_contract():
    checks.check_model(TorchModel(lively(mlp(nn.Tanh, nn.BatchNorm1d))), numbered(IMAGES, {}))


def test_training_can_pull_a_group():
    model, labels = TorchModel(lively(cnn())), np.arange(6) % 5
    goal = np.full((6, 10), 3.0, np.float32)
    before = np.square(model.features(IMAGES)["9"] - goal).mean()
    pulled = model.trained(IMAGES, labels, Plan(30, learning_rate=1e-2), 0, steer=Steer("9", goal, 5.0))
    assert np.square(pulled.features(IMAGES)["9"] - goal).mean() < 0.5 * before
