"""Weights: finding a file, recognising its layout by content, and saying exactly what does not fit."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from fastllie.files import replacing
from fastllie.methods import METHODS, info, model_class, unknown

FOLDER = Path(__file__).resolve().parent / "weights"
SUFFIXES = (".safetensors", ".pth", ".pt")
# what DataParallel puts before each name
_PARALLEL = "module."
_WRAPPERS = ("state_dict", "model", "params")
_PUBLISHED_CURVES = re.compile(r"e_conv([1-7])\.(?:(depth|point)_conv\.)?(weight|bias)")
_SCI_COPIES = re.compile(r"(enhance|calibrate)\.blocks\.(\d+)\.(.+)")
# what inference takes of NeRCo's networks, and what training has besides
_NERCO_PARTS, _NERCO_OTHERS = ("Pre", "H", "G_A"), ("G_B", "D_A", "D_B", "D_A_edge", "D_B_edge")
_NERCO_FILE = re.compile(r"(.+)_net_(Pre|H|G_A)\.pth")
_NERCO_KEY = re.compile(rf"(?:net_?)?({'|'.join(_NERCO_PARTS + _NERCO_OTHERS)})\.(.+)")
_OLD_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_SCI_PLAIN = {"out_conv.0": "in_conv.0", "out_conv.2": "conv.0", "out_conv.4": "out_conv.0"}


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights in our layout.

    Attributes:
        state: The state dict, in our spelling and sign; float32, counters aside.
        options: What the network's constructor has to be given for it.
        names: Our key -> the key in the file.
    """

    state: dict[str, Tensor]
    options: dict[str, Any]
    names: dict[str, str]


def find(method: str, weights: str | os.PathLike[str] | None) -> Path:
    """The file that `weights` means: None (the default variant), a variant's name, or a path.

    Raises:
        TypeError: neither a string nor a path.
        ValueError: an unknown variant, or a file of a suffix that holds no weights.
        FileNotFoundError: no such file.
    """
    row = info(method)
    if weights is None:
        weights = row.weights[0].name
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(f"weights must be a variant's name, a path or None, got {type(weights).__name__}")
    variants = {variant.name: variant.file for variant in row.weights}
    if isinstance(weights, str) and weights in variants:
        path = FOLDER / variants[weights]
        if not path.is_file():
            raise FileNotFoundError(
                f"the weights {weights!r} of {method} are missing from this installation: {path}"
            )
        return path
    path = Path(weights)
    if path.is_dir() and method == "nerco":
        return _nerco_in(path)
    if path.is_dir():
        raise ValueError(f"weights {os.fspath(path)!r} is a directory; wanted a file: {', '.join(SUFFIXES)}")
    if path.suffix.lower() not in SUFFIXES:
        if isinstance(weights, str) and len(path.parts) == 1 and not path.exists() and not path.suffix:
            raise ValueError(
                unknown(f"weights of {method}", weights, variants)
                + f"; or give a path to a file: {', '.join(SUFFIXES)}"
            )
        raise ValueError(f"weights {os.fspath(path)!r}: wanted a file that ends in {', '.join(SUFFIXES)}")
    if not path.exists():
        raise FileNotFoundError(f"no such weight file: {os.fspath(path)!r}")
    return path


def read(path: Path, method: str) -> Checkpoint:
    """Read weights for `method`: our layout, or the one of the published repository.

    Raises:
        ValueError: a file that cannot be read, or whose keys or shapes are not those of the method.
    """
    safe = path.suffix.lower() == ".safetensors"
    if safe:
        found, metadata = _read_safetensors(path)
    elif method == "nerco" and _NERCO_FILE.fullmatch(path.name):
        found, metadata = _read_nerco(path), {}
    else:
        found, metadata = _read_torch(path), {}
    found = _without_module(found)
    found = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in found.items()}
    checkpoint = _LAYOUTS[method](found, metadata)
    _check_fits(path, method, checkpoint, found, metadata)
    for key, tensor in checkpoint.state.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise ValueError(f"{path}: {key} holds {bad} values that are NaN or infinite")
    return checkpoint


def _without_module(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that data-parallel training leaves."""
    prefix = "module."
    if found and all(key.startswith(prefix) for key in found):
        return {key.removeprefix(prefix): tensor for key, tensor in found.items()}
    return found


def _curve_layout(found: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """Zero-DCE and Zero-DCE++, ours or published.

    The published networks emit -alpha. tanh is odd, so negating the last convolution folds the sign exactly.
    They pad every layer with zeros; ours say how they pad in the metadata, and replicate where there is none.
    """
    names = {_our_curve_key(key): key for key in found}
    state = {key: found[name] for key, name in names.items()}
    if not any(_PUBLISHED_CURVES.fullmatch(key) for key in found):
        return Checkpoint(state, {"padding": metadata.get("padding", "replicate")}, names)
    last = "conv7.point." if any(".point." in key for key in state) else "conv7."
    state = {key: -tensor if key.startswith(last) else tensor for key, tensor in state.items()}
    return Checkpoint(state, {"padding": "zeros"}, names)


def _our_curve_key(published: str) -> str:
    """A published key in our spelling; any other as it is."""
    match = _PUBLISHED_CURVES.fullmatch(published)
    if match is None:
        return published
    layer, part, kind = match.groups()
    return f"conv{layer}.{part}.{kind}" if part else f"conv{layer}.{kind}"


def _sci_layout(found: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """SCI, ours or published; the keys are the same.

    The published files hold the shared blocks once more for each time that they run: `*.blocks.*`. The
    network of March 2022 has neither residual nor batch norm, and its convolutions all stand in
    `enhance.out_conv`. Files of ours say in the metadata how they pad and how often the block runs; all
    others pad with zeros.
    """
    names = {}
    runs = int(metadata.get("blocks", 1))
    plain = any(key.startswith("enhance.out_conv.4.") for key in found)
    for name, tensor in found.items():
        copy = _SCI_COPIES.fullmatch(name)
        if copy is None:
            network, _, rest = name.partition(".")
            layer, _, kind = rest.rpartition(".")
            renamed = plain and network == "enhance" and layer in _SCI_PLAIN
            names[f"enhance.{_SCI_PLAIN[layer]}.{kind}" if renamed else name] = name
            continue
        network, place, rest = copy.groups()
        original = found.get(f"{network}.{'conv' if network == 'enhance' else 'convs'}.{rest}")
        if original is None or not torch.equal(original, tensor):
            # not the published scheme of shared blocks: let it be listed
            names[name] = name
        elif network == "enhance":
            runs = max(runs, int(place) + 1)
    state = {key: found[name] for key, name in names.items()}
    first = state.get("enhance.in_conv.0.weight", torch.empty(3))
    block = "basic"
    if any(key.startswith("enhance.cell.") for key in state):
        block = "ruas"
    elif "enhance.conv.0.weight" in state and "enhance.conv.1.weight" not in state:
        block = "plain"
    options = {
        "block": block,
        "blocks": runs,
        "channels": max(1, first.shape[0]) if first.dim() else 1,
        "padding": metadata.get("padding", "zeros"),
        "calibrate": any(key.startswith("calibrate.") for key in state),
    }
    return Checkpoint(state, options, names)


def _guided_layout(found: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """EnlightenGAN, ours or published; the keys are the same, the width is read off the first convolution.

    The published files were written before batch norm counted its batches; the counters start at zero.
    """
    state = dict(found)
    for key in found:
        norm, _, kind = key.rpartition(".")
        if kind == "running_mean":
            state.setdefault(f"{norm}.num_batches_tracked", torch.zeros((), dtype=torch.int64))
    options: dict[str, Any] = {name: _flag(metadata, name) for name in ("align_corners", "in_logits")}
    first = state.get("conv1_1.weight", torch.empty(0))
    if first.numel():
        options["width"] = first.shape[0] if first.dim() else 1
    return Checkpoint(state, options, {key: key for key in state})


def _flag(metadata: Mapping[str, str], name: str) -> bool:
    told = metadata.get(name, "False")
    if told not in ("True", "False"):
        raise ValueError(f"{name} in the file must be 'True' or 'False', got {told!r}")
    return told == "True"


def _nerco_layout(found: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """NeRCo: the networks of inference under their published names, `Pre.`, `H.` and `G_A.`.

    Those that only training needs are left alone, and so are statistics that old instance norms kept and
    never used. Files of ours with coordinates or logits say so in the metadata.
    """
    names = {}
    for name in found:
        match = _NERCO_KEY.fullmatch(name)
        if name.rpartition(".")[2] in _OLD_STATISTICS or (match and match[1] in _NERCO_OTHERS):
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
        "in_logits": _flag(metadata, "in_logits"),
    }
    return Checkpoint(state, options, names)


def _nerco_in(folder: Path) -> Path:
    """One of the published files in a folder; the others are found from it.

    Raises:
        FileNotFoundError: none there.
        ValueError: several trainings or epochs, and none of them called latest.
    """
    matches = [match for name in sorted(os.listdir(folder)) if (match := _NERCO_FILE.fullmatch(name))]
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


def _read_nerco(path: Path) -> dict[str, Tensor]:
    """The three published files of which `path` is one."""
    match = _NERCO_FILE.fullmatch(path.name)
    files = {part: path.with_name(f"{match[1]}_net_{part}.pth") for part in _NERCO_PARTS} if match else {}
    absent = [file.name for file in files.values() if not file.is_file()]
    if absent:
        raise FileNotFoundError(
            f"nerco's published weights are three files; not in {path.parent}: {', '.join(absent)}"
        )
    return {
        f"{part}.{key}": tensor
        for part, file in files.items()
        for key, tensor in _without_module(_read_torch(file)).items()
    }


def _own_layout(found: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """`dawn`: there is no published file."""
    return Checkpoint(dict(found), {}, {key: key for key in found})


_LAYOUTS: Mapping[str, Callable[[Mapping[str, Tensor], Mapping[str, str]], Checkpoint]] = {
    "zerodce": _curve_layout,
    "zerodce++": _curve_layout,
    "sci": _sci_layout,
    "enlightengan": _guided_layout,
    "nerco": _nerco_layout,
    "dawn": _own_layout,
}


def export_official(network: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a network's weights as its published code does, for its scripts.

    SCI: a .pt with the shared blocks repeated under `blocks`; the script that enhances needs the enhance
    network alone, the one that trains the calibration network too. They pad with zeros, whatever the network
    was trained with. EnlightenGAN: what the published `<epoch>_net_G_A.pth` holds, `module.` before every
    name; the published code takes its corners from the PyTorch that it runs on. NeRCo: `path` is a folder,
    made where there is none, that gets latest_net_Pre.pth, latest_net_H.pth and latest_net_G_A.pth.

    Raises:
        TypeError: another network than SCI, EnlightenGAN and NeRCo.
        ValueError: a block, a width or coordinates that the published code does not have.
    """
    from fastllie.models.enlightengan import EnlightenGAN
    from fastllie.models.nerco import NeRCo
    from fastllie.models.sci import SCI

    if isinstance(network, NeRCo):
        return _export_nerco(network, Path(path))
    if isinstance(network, SCI):
        state = _published_sci(network)
    elif isinstance(network, EnlightenGAN):
        state = _published_enlightengan(network)
    else:
        raise TypeError(f"network must be an SCI, an EnlightenGAN or a NeRCo, got {type(network).__name__}")
    torch.save(state, path)


def _published_sci(network: Any) -> dict[str, Tensor]:
    from fastllie.models.sci import CALIBRATE_BLOCKS

    if network.block != "basic":
        raise ValueError(f"the published code has the block 'basic' alone, the network has {network.block!r}")
    state = {}
    for key, tensor in network.state_dict().items():
        state[key] = tensor.detach().cpu().clone()
        for shared, copies in (("enhance.conv.", network.blocks), ("calibrate.convs.", CALIBRATE_BLOCKS)):
            if key.startswith(shared):
                rest = key.removeprefix(shared)
                prefix = shared.split(".")[0]
                state |= {f"{prefix}.blocks.{place}.{rest}": state[key] for place in range(copies)}
    return state


def _published_enlightengan(network: Any) -> dict[str, Tensor]:
    from fastllie.models.enlightengan import WIDTH

    if network.width != WIDTH:
        raise ValueError(f"the published code has the width {WIDTH} alone, the network has {network.width}")
    if network.in_logits:
        raise ValueError("the published code adds no logits")
    # the published PyTorch knows no counters of batches
    return {
        f"{_PARALLEL}{key}": tensor.detach().cpu().clone()
        for key, tensor in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def _export_nerco(network: Any, folder: Path) -> None:
    if network.coordinates != "published":
        raise ValueError(f"the published code has no coordinates {network.coordinates!r}")
    if network.in_logits:
        raise ValueError("the published code adds no logits")
    folder.mkdir(parents=True, exist_ok=True)
    for part in _NERCO_PARTS:
        state = getattr(network, part).state_dict()
        state = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
        with replacing(folder / f"latest_net_{part}.pth") as temporary:
            torch.save(state, temporary)


def write(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file in our layout, whole or not at all, readable as any new file is."""
    temporary = path.with_name(path.name + ".part")
    # not save_file: what it writes only its owner may read
    temporary.write_bytes(to_bytes(dict(state), metadata={"format": "fastllie", **metadata}))
    os.replace(temporary, path)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # safetensors' own errors have no common public base
        raise ValueError(f"{path} is not a readable safetensors file{_looks_like(path)}: {error}") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each raise their own kinds for a damaged file
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path} is not a readable PyTorch checkpoint of tensors alone{_looks_like(path)}: {first}"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}; wanted a state dict (names to tensors)")
    strangers = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ValueError(f"{path}: wanted tensors alone, but these entries are not: {_listed(strangers)}")
    return {str(key): value for key, value in content.items()}


def _looks_like(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        return " (it is empty)"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return " (it is a web page: the download went wrong)"
    if start.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer, not the file itself)"
    return ""


def _check_fits(
    path: Path,
    method: str,
    checkpoint: Checkpoint,
    content: Mapping[str, Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Raise a ValueError unless keys and shapes are the method's."""
    names = checkpoint.names
    found = _shapes(checkpoint.state)
    wanted = _wanted(method, checkpoint)
    if found == wanted:
        return
    for other in METHODS:
        read_as = _LAYOUTS[other](content, metadata)
        if other != method and _shapes(read_as.state) == _wanted(other, read_as):
            raise ValueError(f"{path} holds weights of {other!r}, wanted weights of {method!r}")
    missing = [f"{key} {wanted[key]}" for key in wanted if key not in found]
    unexpected = [f"{names[key]} {found[key]}" for key in found if key not in wanted]
    shapes = [
        f"{names[key]} {found[key]}, wanted {wanted[key]}"
        for key in wanted
        if key in found and found[key] != wanted[key]
    ]
    lines = [f"{path} does not fit {method!r}:"]
    for label, entries in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes)):
        if entries:
            lines.append(f"  {label}: {_listed(entries)}")
    lines.append("  wanted: fastllie's layout, or the one of the published repository")
    raise ValueError("\n".join(lines))


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _wanted(method: str, checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The keys and shapes of a network with the options that the file tells.

    The padding does not matter to them, and one method may not know another's.
    """
    options = {name: value for name, value in checkpoint.options.items() if name != "padding"}
    with torch.device("meta"):
        return _shapes(model_class(method)(**options).state_dict())


def _listed(entries: list[str], most: int = 8) -> str:
    more = f" and {len(entries) - most} more" if len(entries) > most else ""
    return ", ".join(entries[:most]) + more


def build(method: str, path: Path, options: Mapping[str, Any]) -> torch.nn.Module:
    """The method's network with the weights of `path`, on the CPU in float32, in eval mode.

    Of `options` those that are None leave the choice to the file.
    """
    checkpoint = read(path, method)
    given = {name: value for name, value in options.items() if value is not None}
    try:
        # without memory: drawing initial weights would cost time and move the caller's random state
        with torch.device("meta"):
            model = model_class(method)(**{**checkpoint.options, **given})
    except ValueError as error:
        raise ValueError(f"{method} with weights {path}: {error}") from error
    model.load_state_dict(checkpoint.state, assign=True)
    return model.eval()
