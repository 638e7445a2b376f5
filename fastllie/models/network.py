"""What every network is besides its layers: declared, also had in standard operators, fused only as built."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _global

from fastllie.models.contract import Contract, Observed
from fastllie.models.sharing import Shared
from fastllie.ops.packing import Packing

# what every module has; the rest of its attributes are its settings
_COMMON = frozenset((*nn.Module().__dict__, "_packing", "_built"))
_GLOBAL_HOOKS = (
    _global._global_forward_hooks,
    _global._global_forward_pre_hooks,
    _global._global_backward_hooks,
    _global._global_backward_pre_hooks,
)
# what the classes of layers do, as they were found
_forwards: dict[type[nn.Module], Any] = {}


class Built(NamedTuple):
    """How a module was built: what a fused path takes for granted."""

    kind: type[nn.Module]
    settings: Mapping[str, Any]
    tensors: Mapping[str, torch.Size | None]
    children: Mapping[str, "Built | None"]

    @classmethod
    def of(cls, module: nn.Module, kind: type[nn.Module] | None = None, free: Sequence[str] = ()) -> "Built":
        """As the module is now.

        Args:
            kind: The class that it has to be of; None: its own.
            free: Settings that may change, since every path reads them when it runs.
        """
        kind, attributes = kind or type(module), module.__dict__
        _forwards.setdefault(kind, kind.forward)
        settings = {name: value for name, value in attributes.items() if name not in _COMMON}
        return cls(
            kind,
            {**settings, **dict.fromkeys(free, ...)},
            _shapes(attributes),
            {name: child and cls.of(child) for name, child in attributes["_modules"].items()},
        )

    def holds(self, module: nn.Module, training: bool) -> bool:
        """Whether the module and all in it still are so, without hooks, in this mode."""
        kind, attributes = self.kind, module.__dict__
        if type(module) is not kind or attributes["training"] is not training or hooked(module):
            return False
        if _forwards.setdefault(kind, kind.forward) is not kind.forward:
            return False
        if len(attributes.keys() - _COMMON) != len(self.settings):
            return False
        for name, value in self.settings.items():
            if name not in attributes or (value is not ... and attributes[name] != value):
                return False
        children = attributes["_modules"]
        if _shapes(attributes) != self.tensors or children.keys() != self.children.keys():
            return False
        for name, built in self.children.items():
            child = children[name]
            if not (built is child if built is None or child is None else built.holds(child, training)):
                return False
        return True


def _shapes(attributes: Mapping[str, Any]) -> dict[str, torch.Size | None]:
    tensors = {**attributes["_parameters"], **attributes["_buffers"]}
    return {name: None if tensor is None else tensor.shape for name, tensor in tensors.items()}


def hooked(module: nn.Module) -> bool:
    """Whether a hook wants to see a module's calls, forward or backward."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def is_bare(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of the module is its class's, and nobody sees it: its parts may be called instead."""
    return type(module) is kind and "forward" not in module.__dict__ and not (hooked(module) or _seen())


def untouched(module: nn.Module, built: Built) -> bool:
    """Whether a module is as it was built, and nobody sees the calls of its parts."""
    return not _seen() and built.holds(module, module.training)


def _seen() -> bool:
    """Whether a hook wants to see the calls of all modules."""
    return any(_GLOBAL_HOOKS)


def standard_only() -> bool:
    """Whether torch.func or an ONNX exporter is at work, which see into PyTorch's own operators only."""
    if torch.onnx.is_in_onnx_export():
        return True
    # what torch.compile traces cannot ask
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


class Network(Shared, nn.Module):
    """A method's network: images `[B, 3, H, W]` in [0, 1] to images of the same shape.

    The last line of a constructor is `self._built = Built.of(self, <its class>, ...)`. `forward` has no
    arguments by keyword only: the older of the two ONNX exporters passes their defaults by position.
    """

    _built: Built

    def __init__(self) -> None:
        super().__init__()
        self._packing = Packing()

    @property
    def contract(self) -> Contract:
        """What the network needs and offers, with its weights and options."""
        raise NotImplementedError

    def observe(self, x: Tensor) -> Observed:
        """What pieces of the batch have to know of the whole; only where the contract says so."""
        raise NotImplementedError

    def enhance_into(self, x: Tensor, out: Tensor, *, bgr: bool = False) -> Tensor:
        """`forward` without gradients into `out`, apart from `x`; only where the contract says `one_pass`.

        `bgr` is the order of the colours in both.
        """
        raise NotImplementedError

    def standard(self, x: Tensor) -> Tensor:
        """`forward` in PyTorch's standard operators alone, layer by layer."""
        raise NotImplementedError

    def plain(self) -> nn.Module:
        """The same network, on the same layers, for those who know standard operators only."""
        return Plain(self)

    def settle(self) -> None:
        """Promise that neither layers nor weights will change any more, so that none are looked at again."""
        self._packing.settled = True

    def as_built(self) -> bool:
        """Whether nobody put anything on or in place of a layer: only then may a fused path stand for them.

        Asked at each inference: hooks, parametrizations, pruning, quantization and adapters come and go.
        """
        if self._packing.settled:
            return True
        return untouched(self, self._built)


class Plain(nn.Module):
    """A network in standard operators; see `Network.plain`."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.standard(x)
