"""The files of NeRCo: ours, one, and those of the published repository, three."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fastllie.checkpoint.candidates import candidates
from fastllie.checkpoint.file import Checkpoint, flag, read_torch, write_published

# options that the shapes of the tensors tell, and those that the metadata of a file of ours does
SHAPE = ("width", "blocks", "pre_blocks", "mask_blocks", "hidden")
SAID = ("coordinates", "in_logits", "keep_cast")
# what inference takes of NeRCo's networks, and what training has besides
_PARTS, _OTHERS = ("Pre", "H", "G_A"), ("G_B", "D_A", "D_B", "D_A_edge", "D_B_edge")
_FILE = re.compile(r"(.+)_net_(Pre|H|G_A)\.pth")
_KEY = re.compile(rf"(?:net_?)?({'|'.join(_PARTS + _OTHERS)})\.(.+)")
_OLD_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def layout(found: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """NeRCo: the networks of inference under their published names, `Pre.`, `H.` and `G_A.`.

    Those that only training needs are left alone, and so are statistics that old instance norms kept and
    never used. Files of ours with coordinates, logits or the image's cast say so in
    the metadata.
    """
    names = {}
    for name in found:
        match = _KEY.fullmatch(name)
        if name.rpartition(".")[2] in _OLD_STATISTICS or (match and match[1] in _OTHERS):
            continue
        names[f"{match[1]}.{match[2]}" if match else name] = name
    state = {key: found[name] for key, name in names.items()}

    def size(key: str, default: int) -> int:
        return max(1, state[key].shape[0]) if key in state and state[key].dim() else default

    def blocks(network: str, default: int) -> int:
        pattern = re.compile(rf"{network}\.model\.\d+\.conv_block\.1\.weight")
        return sum(pattern.fullmatch(key) is not None for key in state) or default

    width = size("G_A.model.1.weight", 64)
    options = {
        "width": width,
        "blocks": blocks("G_A", 9),
        "pre_blocks": blocks("Pre", 9),
        "mask_blocks": blocks("H", 3),
        "hidden": size("Pre.mlp.imnet.layers.0.weight", 4 * width),
        "coordinates": metadata.get("coordinates", "published"),
        "in_logits": flag(metadata, "in_logits"),
        "keep_cast": flag(metadata, "keep_cast"),
    }
    return Checkpoint(state, options, names)


def file_in(folder: Path) -> Path:
    """One of the published files in a folder; the others are found from it.

    Raises:
        FileNotFoundError: none there.
        ValueError: several trainings or epochs, and none of them called latest.
    """
    matches = [match for name in sorted(os.listdir(folder)) if (match := _FILE.fullmatch(name))]
    epochs = list(dict.fromkeys(match[1] for match in matches))
    if not epochs:
        raise FileNotFoundError(
            f"no weights of nerco in {os.fspath(folder)!r}: wanted latest_net_Pre.pth, latest_net_H.pth and"
            " latest_net_G_A.pth, or give a path to a file"
        )
    if "latest" not in epochs and len(epochs) > 1:
        raise ValueError(
            f"several weights of nerco in {os.fspath(folder)!r}: {', '.join(epochs)}; give the path of one"
            f" file, e.g. {matches[0][0]!r}"
        )
    return folder / f"{'latest' if 'latest' in epochs else epochs[0]}_net_G_A.pth"


def is_published(path: Path) -> bool:
    """Whether a file is called as one of the published three."""
    return _FILE.fullmatch(path.name) is not None


def read_published(path: Path) -> dict[str, dict[str, Tensor]]:
    """The networks in the three published files of which `path` is one."""
    match = _FILE.fullmatch(path.name)
    files = {part: path.with_name(f"{match[1]}_net_{part}.pth") for part in _PARTS} if match else {}
    absent = [file.name for file in files.values() if not file.is_file()]
    if absent:
        raise FileNotFoundError(
            f"nerco's published weights are three files; not in {path.parent}: {', '.join(absent)}"
        )
    return {part: _alone(read_torch(file)) for part, file in files.items()}


def _alone(tensors: Mapping[tuple[str, ...], Tensor]) -> dict[str, Tensor]:
    """The network in a file, without what is wrapped around it: the outermost place with the names of one."""
    for found in candidates(tensors, 1).values():
        if any(key.startswith(("model.", "mlp.")) for key in found):
            return found
    return {".".join(path): tensor for path, tensor in tensors.items()}


def export(network: Any, folder: Path) -> None:
    """Write the published files into a folder, made where there is none."""
    if network.coordinates != "published":
        raise ValueError(f"the published code has no coordinates {network.coordinates!r}")
    if network.in_logits:
        raise ValueError("the published code adds no logits")
    if network.keep_cast:
        raise ValueError("the published code keeps no cast")
    folder.mkdir(parents=True, exist_ok=True)
    for part in _PARTS:
        state = getattr(network, part).state_dict()
        state = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
        write_published(folder / f"latest_net_{part}.pth", state)
