"""PyTorch models: any ``nn.Module`` from Python, or ``torch:module:factory?weights=x.safetensors``."""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers
from minutia.core.code import one_line, own_code
from minutia.core.digest import Array, content_digest
from minutia.core.errors import AnswerError, FileError, MinutiaError, MissingExtraError, ModelError
from minutia.core.model import ModelCard, Plan, Steer
from minutia.core.probe import ProbeSet
from minutia.core.units import Units
from minutia.models import split_spec, whole_number

if TYPE_CHECKING:
    import torch

MAX_WEIGHT_BYTES = 64 * 2**30


class TorchModel:
    """A classifier that is an ``nn.Module``: float32 inputs (n, *shape) to logits (n, classes).

    The module is used in evaluation mode and never changed; training and rebuilding return new models.
    """

    access = Access.LABELS | Access.TOP_K | Access.SCORES | Access.LOGITS | Access.GRADIENTS | Access.FEATURES
    access |= Access.WEIGHTS | Access.TRAIN

    def __init__(
        self,
        module: "torch.nn.Module",
        spec: str = "",
        card: ModelCard | None = None,
        *,
        factory: Callable[[], Any] | None = None,
        trainer: Callable[..., Any] | None = None,
    ) -> None:
        self.module = module.eval()
        self.factory, self.trainer = factory, trainer
        self.spec = spec or f"torch:{type(module).__module__}:{type(module).__qualname__}"
        self.card = card or _card(self)

    def ask(self, probes: ProbeSet) -> Answers:
        """Logits and softmax scores of every probe, in one batch."""
        torch = _torch()
        with torch.no_grad():
            logits = self._forward(torch.from_numpy(np.ascontiguousarray(probes.array, dtype=np.float32)))
            return Answers.from_scores(logits.softmax(dim=1).numpy(), logits.numpy())

    def linearise(self, inputs: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Logits and the pull-back to the inputs, by reverse-mode differentiation."""
        torch = _torch()
        x = torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32)).requires_grad_(True)
        with _frozen(self.module):
            logits = self._forward(x)

        def pull_back(slope: Array) -> Array:
            (gradient,) = torch.autograd.grad(logits, x, torch.from_numpy(np.asarray(slope, np.float32)))
            return np.asarray(gradient.numpy())

        return logits.detach().numpy(), pull_back

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Every entry of the state dict that is not a counter; views, so they cannot be written to."""
        for name, tensor in self.module.state_dict().items():
            if tensor.is_floating_point():
                array = tensor.detach().float().numpy()
                array.flags.writeable = False
                yield name, array

    def rebuilt(self, weights: Mapping[str, Array]) -> "TorchModel":
        """The same architecture with these weights; missing names keep their value, the root stays."""
        return self._child(self._copy(weights))._with_parent(self)

    def units(self) -> tuple[Units, ...]:
        """Groups of hidden units, read from the module's graph; a module that cannot be traced: ModelError."""
        from minutia.models.torch_units import units_of

        return units_of(self.module, self.spec)

    def features(self, inputs: Array) -> dict[str, Array]:
        """What each group's last reader sees: group name -> (n, count), the mean over positions of every unit."""
        from minutia.models.torch_units import watched

        torch = _torch()
        with torch.no_grad(), watched(self.module, self.units()) as seen:
            self._forward(torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32)))
        return {name: values.float().numpy() for name, values in seen.items()}

    @property
    def joint(self) -> bool:
        """Whether ``trained_many`` takes less time than one training after the other: small dense networks."""
        from minutia.models import torch_training

        return self.trainer is None and torch_training.stackable(self.module)

    def trained(
        self, inputs: Array, targets: Array, plan: Plan, seed: int, *, steer: Steer | None = None
    ) -> "TorchModel":
        """Train a copy; a full reset starts a new root, everything else descends from this model.

        ``targets`` are labels (n,) or probabilities (n, classes) at ``plan.temperature``. Weight decay is decoupled
        with Adam, part of the gradient with SGD. A full reset calls the factory again, if there is one, and the
        owner's own training function, if the spec names one with ``train=``; the plan is then that function's
        business. The environment variable MINUTIA_DEVICE names where to train, such as cuda.
        """
        from minutia.models import torch_training

        inputs, targets = np.ascontiguousarray(inputs, np.float32), np.asarray(targets)
        with self._training(inputs):
            module = self._seeded(plan, seed)
            if plan.reset == "everything" and self.trainer and targets.ndim == 1:
                module = self.trainer(module, inputs, targets, seed)
            else:
                torch_training.fit(module, inputs, targets, plan, steer)
        return self._descendant(module, plan)

    def trained_many(self, inputs: Array, targets: Array, plan: Plan, seeds: Sequence[int]) -> "list[TorchModel]":
        """One fresh training per seed, as ``trained`` up to float noise; what cannot share a pass is trained alone.

        Together are trained: models that are ``joint``, with labels, Adam, all layers from fresh weights. A seed's
        weights do not depend on the others in the call; up to eight seeds take the time of eight.
        """
        inputs, targets = np.ascontiguousarray(inputs, np.float32), np.asarray(targets)
        usual = replace(plan, optimiser="adam", reset="everything", layers="all", temperature=1.0)
        if self.joint and plan == usual and targets.ndim == 1 and len(seeds):
            # A forward pass that draws or branches by itself cannot be stacked; bad data is told by ``trained``.
            with suppress(RuntimeError, ValueError, IndexError):
                return self._stacked(inputs, targets, plan, seeds)
        return [self.trained(inputs, targets, plan, seed) for seed in seeds]

    def _stacked(self, inputs: Array, labels: Array, plan: Plan, seeds: Sequence[int]) -> "list[TorchModel]":
        from minutia.models import torch_training

        with _torch().random.fork_rng(devices=[]), torch_training.one_thread():
            started = [(self._seeded(plan, seed), _torch().get_rng_state()) for seed in seeds]
            modules = [module for module, _ in started]
            torch_training.fit_stack(modules, inputs, labels, plan, [state for _, state in started])
        return [self._descendant(module, plan) for module in modules]

    @contextmanager
    def _training(self, inputs: Array) -> Iterator[None]:
        """Random numbers of its own, one thread, and errors in one sentence."""
        from minutia.models import torch_training

        with _torch().random.fork_rng(devices=[]), torch_training.one_thread():
            try:
                yield
            except MinutiaError:
                raise
            except Exception as error:
                raise ModelError(
                    f"expected {self.spec} to train on inputs {inputs.shape[1:]} with labels from 0, got "
                    f"{type(error).__name__}: {one_line(error)}; check the data or use train="
                ) from error

    def _seeded(self, plan: Plan, seed: int) -> "torch.nn.Module":
        """The module that training starts from; from here on the seed fixes every random number."""
        from minutia.models import torch_training

        _torch().manual_seed(seed)
        if plan.reset == "everything" and self.factory:
            module = self.factory()
        else:
            module = self._copy({})
            torch_training.reset(module, plan.reset)
        return torch_training.with_head(module, plan.classes)

    def _descendant(self, module: "torch.nn.Module", plan: Plan) -> "TorchModel":
        """A trained module as a model; with other classes its spec says so, so that it can be opened again."""
        if plan.classes:
            factory = partial(_with_classes, self.factory, plan.classes) if self.factory else None
            spec = _spec_for(self.spec, plan.classes)
            child = TorchModel(module, spec, factory=factory, trainer=self.trainer)
        else:
            child = self._child(module)
        return child if plan.reset == "everything" else child._with_parent(self)

    def _child(self, module: "torch.nn.Module") -> "TorchModel":
        return TorchModel(module, self.spec, factory=self.factory, trainer=self.trainer)

    def _forward(self, x: "torch.Tensor") -> "torch.Tensor":
        try:
            logits = self.module(x)
        except MinutiaError:
            raise
        except Exception as error:
            raise AnswerError(
                f"expected answers to inputs of shape {tuple(x.shape[1:])}, got an error from {self.spec}: "
                f"{one_line(error)}; check that it runs and takes this input size"
            ) from error
        if not hasattr(logits, "ndim") or logits.ndim != 2:
            shape = tuple(logits.shape) if hasattr(logits, "shape") else type(logits).__name__
            raise ModelError(
                f"expected logits of shape (batch, classes), got {shape} from {self.spec}: "
                "wrap the module so that it returns one score per class"
            )
        return logits.float()

    def _copy(self, weights: Mapping[str, Array]) -> "torch.nn.Module":
        import copy

        torch = _torch()
        module = copy.deepcopy(self.module)
        state = module.state_dict()
        _check_names(state, weights, self.spec, partial=True)
        module.load_state_dict({**state, **{n: torch.from_numpy(np.array(w)) for n, w in weights.items()}})
        return module

    def _with_parent(self, parent: "TorchModel") -> "TorchModel":
        self.card = ModelCard(self.card.id, parent.card.root, parent.card.recipe, (parent.card.id,))
        return self


def open_model(rest: str) -> TorchModel:
    """Open ``module:factory`` or ``file.py:factory``, optionally with ``?weights=x.safetensors&train=module:function``.

    ``classes=N`` replaces the last linear layer of what the factory builds by one with N outputs. Factory and
    training function ``train(module, inputs, labels, seed) -> module`` are the user's own code, named on his own
    command line; weights are only ever read as data.
    """
    target, options = split_spec(rest, allowed=("weights", "train", "classes"))
    factory = own_code(target, "torch")
    trainer = own_code(options["train"], "torch") if "train" in options else None
    torch = _torch()
    from minutia.models import torch_training

    try:
        module = factory()
    except Exception as error:
        raise ModelError(
            f"expected {target} to build a module, got {type(error).__name__}: {one_line(error)}; "
            "MINUTIA_DEBUG=1 shows where"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"expected {target} to return a torch.nn.Module, got {type(module).__name__}")
    if "classes" in options:
        classes = whole_number(options, "classes", 0, least=2)
        module, factory = torch_training.with_head(module, classes), partial(_with_classes, factory, classes)
    if "weights" in options:
        _load(module, Path(options["weights"]), target)
    return TorchModel(module, f"torch:{rest}", factory=factory, trainer=trainer)


def _with_classes(factory: Callable[[], Any], classes: int) -> Any:
    """What a factory builds, with a last layer for so many classes."""
    from minutia.models import torch_training

    return torch_training.with_head(factory(), classes)


def _spec_for(spec: str, classes: int) -> str:
    """The spec of the same architecture with so many classes; the weights it names do not fit any more.

    >>> _spec_for("torch:nets:small?weights=a.pt&train=nets:fit", 5)
    'torch:nets:small?train=nets:fit&classes=5'
    """
    place, _, query = spec.partition("?")
    kept = [o for o in query.split("&") if o and o.partition("=")[0] not in ("weights", "classes")]
    return f"{place}?{'&'.join([*kept, f'classes={classes}'])}"


def read_weights(path: Path) -> dict[str, Any]:
    """Tensors of a ``.safetensors`` file, or of a ``.pt``/``.pth`` file read with ``weights_only=True``."""
    torch = _torch()
    if not path.is_file():
        raise FileError(f"expected a weights file, found nothing at {path}: check the path")
    if path.stat().st_size > MAX_WEIGHT_BYTES:
        raise FileError(f"expected at most {MAX_WEIGHT_BYTES >> 30} GiB of weights, got {path}: split the file")
    try:
        if path.suffix in (".pt", ".pth", ".bin"):
            found = dict(torch.load(path, map_location="cpu", weights_only=True))
        else:
            from safetensors.torch import load_file

            found = dict(load_file(path))
    except pickle.UnpicklingError as error:
        # Torch's own text recommends to load the file all the same, which would run its code.
        raise FileError(
            f"expected plain tensors in {path}, got pickled objects or a damaged file: "
            "save the state dict as safetensors; minutia never runs a file's code"
        ) from error
    except Exception as error:
        raise FileError(
            f"expected readable weights in {path}, got {one_line(error)}: the file is truncated, altered or foreign"
        ) from error
    odd = [n for n, value in found.items() if not isinstance(n, str) or not isinstance(value, torch.Tensor)]
    if odd:
        raise FileError(f"expected tensors by name in {path}, got {type(found[odd[0]]).__name__} as {odd[0]!r}"[:300])
    return found


def _load(module: "torch.nn.Module", path: Path, target: str) -> None:
    """Read weights into a module, or say which names or shapes do not fit."""
    weights = read_weights(path)
    _check_names(module.state_dict(), weights, f"{path}", partial=False, owner=target)
    module.load_state_dict({**module.state_dict(), **weights})


def _check_names(
    state: Mapping[str, Any], weights: Mapping[str, Any], what: str, *, partial: bool, owner: str = "the module"
) -> None:
    """Names and shapes must be those of the architecture."""
    needed = [n for n, t in state.items() if t.is_floating_point()]
    missing = [] if partial else [n for n in needed if n not in weights]
    unknown = [n for n in weights if n not in state]
    if missing or unknown:
        wrong = f"no {missing[0]!r}" if missing else f"an unknown {unknown[0]!r}"
        raise ModelError(
            f"expected the tensors of {owner} ({len(needed)}), got {wrong} in {what} "
            f"({len(missing)} missing, {len(unknown)} unknown): name the factory these weights were saved from"
        )
    for name, value in weights.items():
        if tuple(value.shape) != tuple(state[name].shape):
            raise ModelError(
                f"expected {name!r} of shape {tuple(state[name].shape)} as in {owner}, got {tuple(value.shape)} "
                f"in {what}: name the factory these weights were saved from"
            )


@contextmanager
def _frozen(module: "torch.nn.Module") -> Iterator[None]:
    """Build no graph for the weights while only the input is differentiated: up to a quarter faster."""
    weights = [p for p in module.parameters() if p.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _card(model: TorchModel) -> ModelCard:
    """A card by content: the digest of the weights names the model and, unless told otherwise, its root."""
    digest = content_digest({"kind": "torch", "module": str(model.module)}, dict(model.tensors()))
    return ModelCard(digest, digest)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "torch", "a torch model") from None
    return torch
