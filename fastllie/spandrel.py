"""Our networks for spandrel, which chaiNNer, ComfyUI and others read files of weights with."""

from collections.abc import Mapping
from typing import Any

from fastllie import checkpoint, methods

try:
    import spandrel
except (ImportError, RuntimeError) as error:
    # a RuntimeError: of a torchvision that is not of this PyTorch
    raise ImportError(
        f'fastllie.spandrel needs an extra: pip install "fastllie[spandrel]" ({error})'
    ) from error

# method -> what its architecture is called among the others
ARCHITECTURES = {"zerodce": "Zero-DCE", "zerodce++": "Zero-DCE++", "sci": "SCI", "dawn": "dawn"}


def install(registry: Any = None) -> list[str]:
    """Let spandrel read and run files of Zero-DCE, Zero-DCE++, SCI and dawn, ours and published ones.

    May be called again. spandrel hands on no metadata of a file: SCI mirrors at the border, as our weights
    were trained, where the file is not in the published layout; its block then runs once.

    Args:
        registry: A `spandrel.ArchRegistry`; None is `spandrel.MAIN_REGISTRY`.

    Returns:
        The names of the architectures that were added.
    """
    registry = spandrel.MAIN_REGISTRY if registry is None else registry
    supports = [spandrel.ArchSupport.from_architecture(_Method(method)) for method in ARCHITECTURES]
    return [str(one.architecture.id) for one in registry.add(*supports, ignore_duplicates=True)]


class _Method(spandrel.Architecture):
    """A row of our table as spandrel wants it."""

    def __init__(self, method: str):
        name = ARCHITECTURES[method]
        super().__init__(id=name, name=name, detect=lambda state: _network(method, state) is not None)
        self._method = method

    def load(self, state_dict: Mapping[str, Any]) -> Any:
        network = _network(self._method, state_dict)
        if network is None:
            raise ValueError(f"not a state dict of {self.name}")
        return spandrel.ImageModelDescriptor(
            # no parameter is trained by those who only read
            network.requires_grad_(False),
            dict(network.state_dict()),
            architecture=self,
            purpose="Restoration",
            tags=[methods.info(self._method).title],
            supports_half=True,
            supports_bfloat16=True,
            scale=1,
            input_channels=3,
            output_channels=3,
            size_requirements=spandrel.SizeRequirements(minimum=network.contract.least_side),
            # dawn looks at the whole picture before it takes a part of it
            tiling=spandrel.ModelTiling.DISCOURAGED
            if network.contract.observes
            else spandrel.ModelTiling.SUPPORTED,
        )


def _network(method: str, state: Mapping[str, Any]) -> Any:
    published = any(key.startswith(("enhance.blocks.", "enhance.out_conv.4.")) for key in state)
    metadata = {"padding": "reflect"} if method == "sci" and not published else {}
    try:
        return checkpoint.from_state(method, state, metadata)
    except (AttributeError, IndexError):
        # what other networks hold: entries that are no tensors
        return None
