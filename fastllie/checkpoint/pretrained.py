"""Networks from the Hugging Face Hub, and weights of networks put there."""

import re
from typing import Any

import torch
from safetensors.torch import save as to_bytes

from fastllie import methods
from fastllie.checkpoint import enlightengan, hub, nerco
from fastllie.checkpoint.file import METER, level_tensor
from fastllie.checkpoint.loading import build, fits
from fastllie.models.metered import Metered

# what a network is besides the shapes of its tensors
_SAID = {
    "zerodce": ("padding",),
    "zerodce++": ("padding",),
    "sci": ("padding", "blocks"),
    "enlightengan": enlightengan.SAID,
    "nerco": nerco.SAID,
    "dawn": (),
}
_CARD = """---
library_name: fastllie
pipeline_tag: image-to-image
tags: [low-light-image-enhancement, {method}]
---

Weights of {title} for fastllie:

```python
fastllie.enhance("night.jpg", "{method}", weights="hf://{name}")
```
"""


def from_repository(kind: type[Any], name: str, file: str | None, revision: str | None, options: Any) -> Any:
    """A network of the class with the weights of a repository: see `Network.from_pretrained`."""
    method = method_of(kind)
    address = hub.SCHEME + name + (f"/{file}" if file else "") + (f"@{revision}" if revision else "")
    return build(method, hub.fetch(address), methods.options_of(method, options))


def push(
    network: Any,
    name: str,
    file: str,
    private: bool | None,
    revision: str | None,
    message: str | None,
) -> str:
    """Write a network's weights into a repository: see `Network.push_to_hub`."""
    method = method_of(type(network.network if isinstance(network, Metered) else network))
    if not file.endswith(".safetensors"):
        raise ValueError(f"file must end in .safetensors, got {file!r}")
    if not re.fullmatch("[^/@]+/[^/@]+", name):
        raise ValueError(f"name must be 'owner/name', got {name!r}")
    content = to_file(method, network)
    library = hub.library_of_the_hub()
    api = library.HfApi()
    api.create_repo(name, private=private, exist_ok=True)
    operations = [library.CommitOperationAdd(file, content)]
    if "README.md" not in hub.files_of(library, name, revision):
        row = methods.info(method)
        card = _CARD.format(method=method, title=row.title, name=name)
        operations.append(library.CommitOperationAdd("README.md", card.encode()))
    made = api.create_commit(
        name, operations, commit_message=message or f"Add weights of {method}", revision=revision
    )
    return str(made.commit_url)


def to_file(method: str, network: torch.nn.Module) -> bytes:
    """A file in our layout, which makes the same network again.

    Raises:
        ValueError: layers were added, replaced or wrapped, so that it would not.
    """
    beside = {}
    if isinstance(network, Metered):
        beside[METER], network = level_tensor(network.meter), network.network
    state = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
    state |= beside
    said = {name: str(getattr(network, name)) for name in _SAID[method]}
    if not fits(method, state, said):
        raise ValueError(
            f"the layers of this {type(network).__name__} are not those of {method!r} as it is built: merge"
            " or remove what was put on or in place of them"
        )
    return to_bytes(state, metadata={"format": "fastllie", "method": method, **said})


def method_of(kind: type[Any]) -> str:
    """The method whose network a class is.

    Raises:
        TypeError: a class of the caller's own, or the base of all.
    """
    for method in methods.METHODS:
        if methods.model_class(method) is kind:
            return method
    known = ", ".join(methods.model_class(method).__name__ for method in methods.METHODS)
    raise TypeError(f"{kind.__name__} is the network of no method; those are: {known}")
