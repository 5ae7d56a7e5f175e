"""Training of PyTorch modules: one at a time, or many small ones as one stack; torch is imported inside."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.model import Plan, Steer

if TYPE_CHECKING:
    import torch

DEVICE = "MINUTIA_DEVICE"
"""The environment variable that names where to train, such as cuda; the weights come back to the processor."""
LANES = 8
"""Numbers that vector instructions take at a time: stacks of a multiple of it give every member the same bits."""
STACKED = ("Linear", "Embedding")
"""Layers with weights that many models can share one pass through."""
WEIGHTLESS = ("ReLU", "GELU", "Tanh", "Sigmoid", "SiLU", "LeakyReLU", "ELU", "Flatten", "Unflatten", "Identity")
"""Layers without weights, randomness or state."""


def reset(module: "torch.nn.Module", what: str) -> None:
    """Draw fresh initial values for the last layer with weights, or for every layer."""
    layers = [m for m in module.modules() if hasattr(m, "reset_parameters")]
    fixed = [n for n, m in module.named_modules() if m not in layers and list(m.parameters(recurse=False))]
    if what == "everything" and fixed:
        raise ModelError(
            f"expected layers that can be initialised afresh, got {fixed[0] or 'the module itself'!r} without "
            "reset_parameters: open the model as torch:module:factory, so that the factory is called again"
        )
    chosen: list[Any] = {"nothing": [], "last": layers[-1:], "everything": layers}[what]
    for layer in chosen:
        layer.reset_parameters()


def with_head(module: "torch.nn.Module", classes: int) -> "torch.nn.Module":
    """Replace the last linear layer, in place, by a fresh one with so many outputs; 0 leaves everything as it is."""
    if not classes:
        return module
    from torch import nn

    name = _head(module)
    old = module.get_submodule(name)
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, classes, bias=old.bias is not None)
    if not name:
        return new
    place, _, last = name.rpartition(".")
    setattr(module.get_submodule(place), last, new)
    return module


def fit(module: "torch.nn.Module", inputs: Array, targets: Array, plan: Plan, steer: Steer | None = None) -> None:
    """Train in place on cross-entropy with labels or, at a temperature, with probabilities.

    Weights that diverge stay as they come, without an error.
    """
    import torch

    device = _device()
    module.to(device)
    x, y = _on(device, inputs, targets)
    optimiser = _optimiser(_trainable(module, plan), plan)
    module.train(plan.layers == "all")
    with _pulled(module, steer, len(x)) if steer else nullcontext() as pull:
        for rows in _batches(optimiser, len(x), plan):
            optimiser.zero_grad()
            logits = module(x[rows]) / plan.temperature
            loss = torch.nn.functional.cross_entropy(logits, y[rows]) * plan.temperature**2
            if pull is not None:
                loss = loss + pull(rows)
            loss.backward()
            optimiser.step()
    module.to("cpu").eval()


def stackable(module: "torch.nn.Module") -> bool:
    """Whether many such modules train faster in one stack: dense layers only, no state and no randomness.

    Measured on a 64-64-48-10 network with 900 inputs: 2.0, 2.7 and 3.2 times as fast in groups of 8, 16 and 32.
    Convolutions gain nothing (1.0 to 1.1 times), so they are left to train one after the other.
    """
    leaves = [m for m in module.modules() if not list(m.children())]
    plain = all(type(m).__module__.startswith("torch.nn.modules.") for m in leaves)
    known = all(type(m).__name__ in STACKED + WEIGHTLESS for m in leaves)
    renormed = any(getattr(m, "max_norm", None) is not None or getattr(m, "sparse", False) for m in leaves)
    own = sum(p.numel() for m in leaves for p in m.parameters(recurse=False))
    whole = sum(p.numel() for p in module.parameters())
    frozen = any(not p.requires_grad for p in module.parameters())
    return plain and known and not renormed and not frozen and 0 < whole == own and not list(module.buffers())


def fit_stack(
    modules: "Sequence[torch.nn.Module]", inputs: Array, labels: Array, plan: Plan, states: "Sequence[torch.Tensor]"
) -> None:
    """Train modules of one architecture at a time, in place, each on the order that its own random state draws.

    Stacks are filled up with twins to a multiple of ``LANES``: vector instructions compute what is left over at the
    end of an array by another path, and weights must not depend on the company.
    """
    import torch
    from torch.func import functional_call, stack_module_state, vmap

    device, base, members = _device(), modules[0], -(-len(modules) // LANES) * LANES
    weights, _ = stack_module_state([m.to(device) for _, m in zip(range(members), cycle(modules), strict=False)])
    values = [w.detach().requires_grad_(True) for w in weights.values()]
    x, y = _on(device, inputs, labels)
    orders = [torch.Generator().set_state(s) for _, s in zip(range(members), cycle(states), strict=False)]

    def loss_of(own: dict[str, Any], rows: Any) -> Any:
        return torch.nn.functional.cross_entropy(functional_call(base, own, (x[rows],)), y[rows])

    optimiser = _optimiser(values, plan)
    base.train()
    for epoch in range(plan.epochs):
        _set_rate(optimiser, plan, epoch)
        order = torch.stack([torch.randperm(len(x), generator=g) for g in orders])
        for rows in order.split(plan.batch_size, dim=1):
            optimiser.zero_grad()
            vmap(loss_of)(dict(zip(weights, values, strict=True)), rows).sum().backward()
            optimiser.step()
    for member, module in enumerate(modules):
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), values, strict=True):
                parameter.copy_(value[member])
        module.to("cpu").eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are added in an order that depends on the number of threads: one thread, one digest."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _pulled(module: "torch.nn.Module", steer: Steer, inputs: int) -> "Iterator[Callable[[torch.Tensor], torch.Tensor]]":
    """A function of the rows of the batch that last went through: what the steer adds to the loss."""
    import torch

    from minutia.models.torch_units import watch

    goal = torch.from_numpy(np.array(steer.targets, np.float32)).to(next(module.parameters()).device)
    if len(goal) != inputs:
        raise UsageError(f"expected one row of targets for each of {inputs} inputs, got {len(goal)} to steer to")

    def pull(rows: "torch.Tensor") -> "torch.Tensor":
        if seen().shape[1:] != goal.shape[1:]:
            raise UsageError(f"expected targets of {seen().shape[1]} numbers for {steer.units}, got {goal.shape[1:]}")
        return steer.weight * ((seen() - goal[rows]) ** 2).mean()

    with watch(module, steer.units) as seen:
        yield pull


def _head(module: "torch.nn.Module") -> str:
    """The name of the last linear layer."""
    from torch import nn

    found = [name for name, m in module.named_modules() if isinstance(m, nn.Linear)]
    if not found:
        raise UsageError("expected a linear layer to replace by one for other classes, got none: name another model")
    return found[-1]


def _trainable(module: "torch.nn.Module", plan: Plan) -> "list[torch.nn.Parameter]":
    """All parameters, or those of the last layer that has any (of the new head, where there is one)."""
    if plan.layers == "all":
        return list(module.parameters())
    if plan.classes:
        return list(module.get_submodule(_head(module)).parameters())
    owners = [m for m in module.modules() if list(m.parameters(recurse=False))]
    return list(owners[-1].parameters(recurse=False))


def _optimiser(weights: "Sequence[torch.Tensor]", plan: Plan) -> "torch.optim.Optimizer":
    """Adam with decoupled weight decay, or SGD with momentum and weight decay in the gradient."""
    from torch import optim

    if plan.optimiser == "adam":
        return optim.AdamW(weights, plan.learning_rate, weight_decay=plan.weight_decay, fused=True)
    return optim.SGD(weights, plan.learning_rate, momentum=plan.momentum, weight_decay=plan.weight_decay)


def _batches(optimiser: "torch.optim.Optimizer", count: int, plan: Plan) -> "Iterator[torch.Tensor]":
    """Rows of every minibatch of every epoch; the learning rate is set on the way."""
    import torch

    for epoch in range(plan.epochs):
        _set_rate(optimiser, plan, epoch)
        yield from torch.randperm(count).split(plan.batch_size)


def _set_rate(optimiser: "torch.optim.Optimizer", plan: Plan, epoch: int) -> None:
    for group in optimiser.param_groups:
        group["lr"] = plan.rate_at(epoch / plan.epochs)


def _on(device: str, inputs: Array, targets: Array) -> "tuple[torch.Tensor, torch.Tensor]":
    """Inputs as float32, labels as int64 and probabilities as float32, where the training is."""
    import torch

    y = targets.astype(np.int64 if targets.ndim == 1 else np.float32)
    return torch.from_numpy(inputs).to(device), torch.from_numpy(y).to(device)


def _device() -> str:
    return os.environ.get(DEVICE, "") or "cpu"
