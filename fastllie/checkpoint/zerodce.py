"""The files of Zero-DCE and Zero-DCE++: ours, and those of the published repositories."""

import re
from collections.abc import Mapping

from torch import Tensor

from fastllie.checkpoint.file import Checkpoint

_PUBLISHED = re.compile(r"e_conv([1-7])\.(?:(depth|point)_conv\.)?(weight|bias)")


def layout(found: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """Zero-DCE and Zero-DCE++, ours or published.

    The published networks emit -alpha. tanh is odd, so negating the last convolution folds the sign exactly.
    They pad every layer with zeros; ours say how they pad in the metadata, and replicate where there is none.
    """
    names = {_our_key(key): key for key in found}
    state = {key: found[name] for key, name in names.items()}
    if not any(_PUBLISHED.fullmatch(key) for key in found):
        return Checkpoint(state, {"padding": metadata.get("padding", "replicate")}, names)
    last = "conv7.point." if any(".point." in key for key in state) else "conv7."
    state = {key: -tensor if key.startswith(last) else tensor for key, tensor in state.items()}
    return Checkpoint(state, {"padding": "zeros"}, names)


def _our_key(published: str) -> str:
    """A published key in our spelling; any other as it is."""
    match = _PUBLISHED.fullmatch(published)
    if match is None:
        return published
    layer, part, kind = match.groups()
    return f"conv{layer}.{part}.{kind}" if part else f"conv{layer}.{kind}"
