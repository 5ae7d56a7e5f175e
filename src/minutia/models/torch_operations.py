"""What the operations of a traced PyTorch graph do to hidden units; torch is imported inside."""

import operator
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import fx

LAYERS = {"Linear": 0, "Conv1d": 3, "Conv2d": 4, "Conv3d": 5}
"""Layers that make new units from those before, with the rank of what they put out (0: that of their input)."""
BATCH_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")
OTHER_NORMS = ("LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
POOLS = tuple(f"{kind}Pool{d}d" for kind in ("Max", "Avg", "AdaptiveAvg", "AdaptiveMax") for d in (1, 2, 3))
PLAIN = ("ReLU", "LeakyReLU", "Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout")
"""What treats every unit alike and is positively homogeneous: f(c x) = c f(x) for c > 0."""
BENT = (
    *("Tanh", "Sigmoid", "GELU", "SiLU", "Softmax", "Softplus", "Softsign", "ELU", "SELU", "CELU", "Mish"),
    *("ReLU6", "Hardtanh", "Hardswish", "Hardsigmoid"),
)
"""What treats every unit alike but bends with its size."""

OPERATORS = {"add": "add", "iadd": "add", "sub": "add", "isub": "add"} | dict.fromkeys(
    ("mul", "imul", "truediv", "itruediv"), "multiply"
)
METHODS = {
    **dict.fromkeys(("add", "add_", "sub", "sub_"), "add"),
    **dict.fromkeys(("mul", "mul_", "div", "div_"), "multiply"),
    **dict.fromkeys(("relu", "relu_"), "ReLU"),
    **dict.fromkeys(("clone", "contiguous", "detach", "float"), "Identity"),
    **dict.fromkeys(("tanh", "tanh_", "sigmoid", "sigmoid_", "softmax"), "Tanh"),
    **dict.fromkeys(("view", "reshape"), "view"),
    "mean": "mean",
    "flatten": "flatten",
}
"""Methods of tensors, and functions of the same names, by what they do."""
FUNCTIONS = {
    **dict.fromkeys(("leaky_relu", "leaky_relu_"), "LeakyReLU"),
    **dict.fromkeys(("dropout", "dropout2d", "feature_dropout"), "Dropout"),
    **dict.fromkeys(
        ("gelu", "silu", "softplus", "softsign", "elu", "selu", "celu", "mish", "relu6", "hardtanh", "hardswish"),
        "Tanh",
    ),
    **dict.fromkeys(("avg_pool1d", "max_pool1d", "adaptive_avg_pool1d", "adaptive_max_pool1d"), "AvgPool1d"),
    **dict.fromkeys(("avg_pool2d", "max_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"), "AvgPool2d"),
    **dict.fromkeys(("avg_pool3d", "max_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool3d"), "AvgPool3d"),
}
"""Functions by the module that does the same, or the same to order and scale."""


def shared(module: "torch.nn.Module", read: set[str]) -> set[int]:
    """Parameters with two names, or read by other code than their own layer's: they cannot be changed by group."""
    named = list(module.named_parameters(remove_duplicate=False))
    times = Counter(id(p) for _, p in named)
    return {id(p) for name, p in named if times[id(p)] > 1 or name in read}


def width(norm: Any, layout: str) -> int:
    """How many entries a norm norms, if it treats all of them alike and looks where the units lie; else 0."""
    kind = type(norm).__name__
    if kind in ("LayerNorm", "RMSNorm"):
        return int(norm.normalized_shape[0]) if len(norm.normalized_shape) == 1 and layout != "spatial" else 0
    if kind == "GroupNorm":
        alike = norm.num_groups == 1 or (norm.num_groups == norm.num_channels and layout == "spatial")
        return int(norm.num_channels) if alike else 0
    return int(norm.num_features) if layout == "spatial" or kind in BATCH_NORMS else 0


def argument(node: "fx.Node", place: int, name: str, default: Any) -> Any:
    """What was given at this place or by this name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def is_shape(node: "fx.Node") -> bool:
    """Whether a node asks for a tensor's shape and not for its content."""
    if node.op == "call_method":
        return node.target in ("size", "dim", "numel")
    return (
        node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device")
    )


def batch_size_of(number: Any) -> "fx.Node | None":
    """The tensor whose first size a number is: ``x.size(0)``, ``x.size()[0]`` or ``x.shape[0]``."""
    from torch import fx

    if not isinstance(number, fx.Node):
        return None
    if number.op == "call_method" and number.target == "size" and number.args[1:] == (0,):
        return number.all_input_nodes[0]
    whole = number.all_input_nodes[0]
    asked = is_shape(whole) and (whole.target == "size" or whole.args[1:] == ("shape",))
    return whole.all_input_nodes[0] if asked and number.target is operator.getitem and number.args[1] == 0 else None


def operation(node: "fx.Node") -> str:
    """What a function or method does, in the words of this module; "" if it is not known."""
    if node.op == "call_method":
        return METHODS.get(str(node.target), "")
    return _functions().get(node.target, "") if node.op == "call_function" else ""


@lru_cache(maxsize=1)
def _functions() -> dict[Any, str]:
    """Functions by identity: a function of another library may have the same name."""
    import torch
    from torch.nn import functional

    found: dict[Any, str] = {getattr(operator, name): kind for name, kind in OPERATORS.items()}
    for place in (functional, torch):
        found |= {getattr(place, name): kind for name, kind in METHODS.items() if hasattr(place, name)}
        found |= {getattr(place, name): kind for name, kind in FUNCTIONS.items() if hasattr(place, name)}
    return found
