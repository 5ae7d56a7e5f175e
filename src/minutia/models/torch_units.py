"""Hidden units of PyTorch modules, read from their graph; torch is imported inside."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from minutia.core.errors import ModelError, UsageError
from minutia.core.units import Norm, Slot, Units
from minutia.models import one_line
from minutia.models.torch_operations import (
    BATCH_NORMS,
    BENT,
    LAYERS,
    OTHER_NORMS,
    PLAIN,
    POOLS,
    argument,
    batch_size_of,
    is_shape,
    operation,
    shared,
    width,
)

if TYPE_CHECKING:
    import torch
    from torch import fx


def units_of(module: "torch.nn.Module", spec: str) -> tuple[Units, ...]:
    """Groups of hidden units in the order of their last readers; what is not understood is left out.

    The module's graph is read by symbolic tracing; one that branches on its data cannot be read: ModelError.
    """
    from torch import fx

    try:
        with _evaluating(module):
            graph = fx.Tracer().trace(module)
    except Exception as error:
        raise ModelError(
            f"expected a module whose graph can be traced for its hidden units, got {spec}: {one_line(error)}; "
            "attacks and methods by hidden units need one that does not branch on its data"
        ) from error
    return _Walk(module, graph).found()


@contextmanager
def watched(module: "torch.nn.Module", groups: Sequence[Units]) -> Iterator[dict[str, Any]]:
    """While it is open, every call of the module leaves what each group's last reader saw: name -> (n, count)."""
    seen: dict[str, Any] = {}

    def hook(group: Units) -> Callable[[Any, Any], None]:
        def note(layer: Any, given: Any) -> None:
            seen[group.name] = _by_unit(given[0], group, "Conv" in type(layer).__name__)

        return note

    readers = [module.get_submodule(_layer_of(group.reads[-1].tensor)) for group in groups]
    hooks = [r.register_forward_pre_hook(hook(group)) for r, group in zip(readers, groups, strict=True)]
    try:
        yield seen
    finally:
        for one in hooks:
            one.remove()


@contextmanager
def watch(module: "torch.nn.Module", name: str) -> Iterator[Callable[[], Any]]:
    """While it is open, the function gives what the readers of one group saw in the last call, with its graph."""
    groups = units_of(module, type(module).__name__)
    chosen = [group for group in groups if group.name == name]
    if not chosen:
        known = ", ".join(group.name for group in groups) or "none"
        raise UsageError(f"expected a group of hidden units ({known}), got {name!r}")
    with watched(module, chosen) as seen:
        yield lambda: seen[name]


def _by_unit(x: Any, group: Units, spatial: bool) -> Any:
    """The mean over positions: channels lie in the second dimension before a convolution, else in the last."""
    if spatial:
        return x.reshape(len(x), group.count, -1).mean(2)
    return x.reshape(len(x), -1, group.count, group.reads[-1].repeat).mean((1, 3))


@contextmanager
def _evaluating(module: "torch.nn.Module") -> Iterator[None]:
    """Some modules return more while they train; every part gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@dataclass(frozen=True)
class _Value:
    """What flows between two layers: group of units, class of scales, and where the units lie.

    ``layout`` is "spatial": second of ``rank`` dimensions; "flat": in the last, several entries each; "last": in the
    last, one entry each. Values of one scale class can only be scaled together.
    """

    group: int
    scale: int
    layout: Literal["spatial", "flat", "last"] = "last"
    rank: int = 0


class _Classes:
    """Union-find over groups and scale classes; a mark (a dead group, a fixed scale) holds for the whole class."""

    def __init__(self) -> None:
        self._above: list[int] = []
        self._marked: set[int] = set()

    def new(self, *, marked: bool = False) -> int:
        self._above.append(len(self._above))
        if marked:
            self._marked.add(self._above[-1])
        return self._above[-1]

    def root(self, one: int) -> int:
        while self._above[one] != one:
            one = self._above[one]
        return one

    def join(self, one: int, other: int) -> None:
        self._above[self.root(other)] = self.root(one)

    def mark(self, one: int) -> None:
        self._marked.add(one)

    def marked(self) -> set[int]:
        return {self.root(one) for one in self._marked}


class _Walk:
    """One pass over the graph, from the input to the output.

    A group dies where it meets the input, the output or anything unknown: its order may matter there.
    """

    def __init__(self, module: "torch.nn.Module", graph: "fx.Graph") -> None:
        self.module = module
        self.groups, self.scales = _Classes(), _Classes()
        self.counts: dict[int, int] = {}
        self.writes: list[tuple[_Value, Slot]] = []
        self.reads: list[tuple[_Value, Slot]] = []
        self.norms: list[tuple[_Value, Norm]] = []
        self.guessed: list[_Value] = []  # flattened to a fixed width: right unless something reshapes again
        self.calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
        self.shared = shared(module, {str(node.target) for node in graph.nodes if node.op == "get_attr"})
        self.values: dict[Any, _Value | None] = {}
        for node in graph.nodes:
            self.values[node] = self._step(node)

    def found(self) -> tuple[Units, ...]:
        """The groups that live and are both written and read."""
        made, read, norms = (self._by_group(what) for what in (self.writes, self.reads, self.norms))
        dead = self.groups.marked()
        # Sorted by the place of the last read: what the head reads comes last, also where layers are joined.
        last = {root: place for place, (value, _) in enumerate(self.reads) if (root := self._root(value)) not in dead}
        return tuple(
            Units(
                _layer_of(made[root][0].tensor),
                self.counts[root],
                tuple(made[root]),
                tuple(read[root]),
                homogeneous=any(slot.scales for slot in made[root]),
                norms=tuple(norms[root]),
            )
            for root in sorted(last, key=last.__getitem__)
            if made[root]
        )

    def _by_group(self, pairs: list[tuple[_Value, Any]]) -> dict[int, list[Any]]:
        fixed = self.scales.marked()
        found: dict[int, list[Any]] = defaultdict(list)
        for value, what in pairs:
            if isinstance(what, Slot) and self.scales.root(value.scale) in fixed:
                what = replace(what, scales=False)
            found[self._root(value)].append(what)
        return found

    def _root(self, value: _Value) -> int:
        return self.groups.root(value.group)

    def _step(self, node: "fx.Node") -> _Value | None:
        """What a node puts out; None for numbers and shapes."""
        given = [value for n in node.all_input_nodes if (value := self.values[n]) is not None]
        if node.op in ("placeholder", "get_attr"):
            return self._dead()
        if not given or is_shape(node):
            return None
        found = self._called(node, given[0]) if node.op == "call_module" else self._applied(node, given)
        if found is None:  # nothing is known of it, so nothing may be assumed of what it touches
            for value in [*given, *(self.guessed if node.op != "output" else ())]:
                self.groups.mark(value.group)
        return found or self._dead()

    def _dead(self) -> _Value:
        return _Value(self.groups.new(marked=True), self.scales.new(marked=True))

    # --- modules

    def _called(self, node: "fx.Node", value: _Value) -> _Value | None:
        path = str(node.target)
        layer = self.module.get_submodule(path)
        kind = type(layer).__name__
        if layer._forward_hooks or layer._forward_pre_hooks:  # code of others around it
            return None
        if kind in PLAIN or kind in BENT or kind in POOLS:
            return self._alike(value, kind)
        if kind == "PReLU":
            return value if layer.num_parameters == 1 else None
        if kind == "Flatten":
            return self._flattened(value, layer.start_dim, layer.end_dim)
        if not self._is_ordinary(path, layer):
            return None
        if kind in LAYERS:
            return self._layer(value, path, layer)
        return self._normed(node, value, path, layer) if kind in BATCH_NORMS + OTHER_NORMS else None

    def _is_ordinary(self, path: str, layer: Any) -> bool:
        """Called once, and with tensors of its own."""
        return self.calls[path] == 1 and not self.shared & {id(p) for p in layer.parameters()}

    def _alike(self, value: _Value, kind: str) -> _Value | None:
        """Pass every unit through the same function."""
        if kind in POOLS:
            return value if value.layout == "spatial" else None
        return value if kind in PLAIN else self._bent(value)

    def _bent(self, value: _Value) -> _Value:
        """The same units, of which neither what goes in nor what comes out can be scaled."""
        self.scales.mark(value.scale)
        return replace(value, scale=self.scales.new(marked=True))

    def _layer(self, value: _Value, path: str, layer: Any) -> _Value | None:
        kind = type(layer).__name__
        count, rank = layer.weight.shape[0], LAYERS[kind]
        if rank and layer.groups > 1:
            return self._depthwise(value, path, layer) if layer.weight.shape[1] == 1 else None
        self._read(value, f"{path}.weight", layer.weight.shape[1], spatial=rank > 0)
        made = _Value(self._group(count), self.scales.new(), "spatial" if rank else "last", rank or value.rank)
        self._written(made, path, layer, ("weight", "bias"))
        return made

    def _depthwise(self, value: _Value, path: str, layer: Any) -> _Value | None:
        """A convolution of each channel by itself changes no order; scaled input is scaled output, but for the bias."""
        if value.layout != "spatial" or not layer.groups == layer.out_channels == self.counts.get(self._root(value)):
            return None
        self.writes.append((value, Slot(f"{path}.weight", 0, scales=False)))
        self._written(value, path, layer, ("bias",))
        return value

    def _group(self, count: int) -> int:
        group = self.groups.new()
        self.counts[group] = count
        return group

    def _read(self, value: _Value, tensor: str, size: int, *, spatial: bool) -> None:
        """Note who reads the units, or that it cannot be told which entries belong to a unit."""
        repeat = self._repeat(value, size)
        if not repeat or spatial != (value.layout == "spatial"):
            self.groups.mark(value.group)
        else:
            self.reads.append((value, Slot(tensor, 1, repeat)))

    def _repeat(self, value: _Value, size: int) -> int:
        """Entries per unit; 0 where they do not fit the size."""
        count = self.counts.get(self._root(value), 0)
        fits = count and (size % count == 0 if value.layout == "flat" else size == count)
        return size // count if fits else 0

    def _written(self, value: _Value, path: str, layer: Any, names: Sequence[str], repeat: int = 1) -> None:
        for name in names:
            if getattr(layer, name, None) is not None:
                scales = not name.startswith("running")
                self.writes.append((value, Slot(f"{path}.{name}", 0, repeat, scales)))

    def _normed(self, node: "fx.Node", value: _Value, path: str, layer: Any) -> _Value | None:
        """A norm belongs to the units it norms; their scale is what the norm gives them."""
        size = width(layer, value.layout)
        repeat = self._repeat(value, size) if size else 0
        if not repeat:
            return None
        self.scales.mark(value.scale)
        made = replace(value, scale=self.scales.new(marked=getattr(layer, "weight", None) is None))
        self._written(made, path, layer, ("weight", "bias", "running_mean", "running_var"), repeat)
        if type(layer).__name__ in BATCH_NORMS:
            self._folds(node, made, path, layer)
        return made

    def _folds(self, node: "fx.Node", made: _Value, path: str, norm: Any) -> None:
        """Note a norm with fixed statistics that is the only reader of the layer before it."""
        before = node.all_input_nodes[0]
        if before.op != "call_module" or len(before.users) > 1 or norm.weight is None or norm.running_mean is None:
            return
        layer = self.module.get_submodule(str(before.target))
        if type(layer).__name__ in LAYERS and self._is_ordinary(str(before.target), layer):
            bias = f"{before.target}.bias" if layer.bias is not None else ""
            own = (f"{path}.weight", f"{path}.bias", f"{path}.running_mean", f"{path}.running_var")
            self.norms.append((made, Norm(*own, into=f"{before.target}.weight", bias=bias, epsilon=norm.eps)))

    # --- functions and methods

    def _applied(self, node: "fx.Node", given: list[_Value]) -> _Value | None:
        kind = operation(node)
        if kind == "add":
            return self._added(node, given)
        if kind == "multiply":
            return self._multiplied(node, given)
        if len(given) != 1 or not kind:
            return None
        if kind == "mean":
            return self._averaged(given[0], argument(node, 1, "dim", None), argument(node, 2, "keepdim", False))
        if kind == "flatten":
            return self._flattened(given[0], argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1))
        return self._viewed(given[0], node) if kind == "view" else self._alike(given[0], kind)

    def _added(self, node: "fx.Node", given: list[_Value]) -> _Value | None:
        """A sum joins two groups into one; a number added keeps the order but not the scale."""
        if len(node.all_input_nodes) == 1:
            return self._bent(given[0])
        return given[0] if self._joined(given) else None

    def _multiplied(self, node: "fx.Node", given: list[_Value]) -> _Value | None:
        """A product of two groups joins them and fixes their scale; times a number is just another scale."""
        if len(node.all_input_nodes) == 1:
            number = len(node.args) == 2 and isinstance(node.args[1], int | float)
            return given[0] if number else self._bent(given[0])
        for value in given:
            self.scales.mark(value.scale)
        return given[0] if self._joined(given) else None

    def _joined(self, given: list[_Value]) -> bool:
        """Make one group of two whose units lie alike."""
        if len(given) != 2:
            return False
        one, other = given
        count, second = (self.counts.get(self._root(value)) for value in given)
        if count is None or count != second or (one.layout, one.rank) != (other.layout, other.rank):
            return False
        self.groups.join(one.group, other.group)
        self.scales.join(one.scale, other.scale)
        return True

    def _flattened(self, value: _Value, start: Any, end: Any) -> _Value | None:
        if end != -1 or start not in (1, 2):
            return None
        if value.layout != "spatial":
            return value if start == 1 else None
        return replace(value, layout="flat", rank=2) if start == 1 else replace(value, rank=3)

    def _averaged(self, value: _Value, dims: Any, keep: Any) -> _Value | None:
        """The mean over all positions, or over some of them."""
        dims = [dims] if isinstance(dims, int) else dims
        if value.layout != "spatial" or not isinstance(dims, tuple | list) or not all(isinstance(d, int) for d in dims):
            return None
        over = {d % value.rank for d in dims}
        if not over or min(over) < 2:
            return None
        rank = value.rank if keep is True else value.rank - len(over)
        return replace(value, rank=rank) if rank > 2 else replace(value, layout="last", rank=2)

    def _viewed(self, value: _Value, node: "fx.Node") -> _Value | None:
        """``x.view(n, -1)`` flattens, and so does ``x.view(-1, width)`` if nothing reshapes afterwards."""
        sizes = node.args[1] if len(node.args) == 2 else node.args[1:]
        if not isinstance(sizes, tuple | list) or len(sizes) != 2 or not isinstance(sizes[1], int):
            return None
        whose = batch_size_of(sizes[0])
        if whose is None or (whose is not node.args[0] and whose.op != "placeholder"):
            if sizes[0] != -1 or value.layout == "flat":
                return None
            self.guessed.append(value)
        return self._flattened(value, 1, -1)


def _layer_of(tensor: str) -> str:
    return tensor.rpartition(".")[0]
