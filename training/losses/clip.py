"""CLIP's ResNets as readers of light: two prompts against an image; frozen, from a file of the user's."""

import hashlib
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

# images `[B, 3, H, W]` in [-1, 1] -> logits `[B, 2]` of the dark and of the bright prompt
Reader = Callable[[Tensor], Tensor]

PROMPTS = ("low light image", "high light image")
# as CLIP's tokenizer gives them: start, words, end
TOKENS = {
    "low light image": (49406, 1042, 1395, 2867, 49407),
    "high light image": (49406, 1400, 1395, 2867, 49407),
}
OPEN_CLIP = "open_clip"
VARIABLE = "FASTLLIE_CLIP"
# of the file RN50.pt that OpenAI publishes
RN50_SHA256 = "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"
PREPROCESSES = ("clip", "official")
# of the images that CLIP was trained on, RGB in [0, 1]
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HEAD = 64  # channels of an attention head, in all of CLIP
_REDUCTION = 32  # of the image, until the attention that pools it
_SUFFIXES = (".pt", ".pth", ".safetensors")
_WRAPPERS = ("state_dict", "model")


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside the input; where they reduce, they average first."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: Any = None
        if stride > 1 or inputs != 4 * width:
            layers = {"0": nn.Conv2d(inputs, 4 * width, 1, bias=False), "1": nn.BatchNorm2d(4 * width)}
            self.downsample = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self._reduced(F.relu(self.bn2(self.conv2(y))))))
        if self.downsample is not None:
            x = self.downsample["1"](self.downsample["0"](self._reduced(x)))
        return F.relu(x + y)

    def _reduced(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """One query, the mean of all places, over the places and itself."""

    def __init__(self, places: int, channels: int, outputs: int):
        super().__init__()
        self.heads = channels // _HEAD
        self.positional_embedding = nn.Parameter(torch.zeros(places + 1, channels))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.positional_embedding
        query, key, value = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projected in (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x))
        )
        found = F.scaled_dot_product_attention(query, key, value)
        return self.c_proj(found.transpose(1, 2).flatten(2)[:, 0])


class ImageTower(nn.Module):
    """CLIP's ResNet: prepared images `[B, 3, size, size]` -> features `[B, outputs]`.

    Args:
        width: Channels after the stem.
        blocks: Of each of the four layers.
        size: Side of the images.
    """

    def __init__(self, width: int, blocks: Sequence[int], size: int, outputs: int):
        super().__init__()
        self.size = size
        self.conv1 = nn.Conv2d(3, width // 2, 3, 2, 1, bias=False)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(n) for n in (width // 2, width // 2, width))
        inputs = width
        for layer, count in enumerate(blocks):
            wide = width * 2**layer
            made = []
            for place in range(count):
                made.append(Bottleneck(inputs, wide, 2 if layer and not place else 1))
                inputs = 4 * wide
            self.add_module(f"layer{layer + 1}", nn.Sequential(*made))
        self.attnpool = AttentionPool((size // _REDUCTION) ** 2, inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for place in ("1", "2", "3"):
            x = F.relu(self.get_submodule(f"bn{place}")(self.get_submodule(f"conv{place}")(x)))
        x = F.avg_pool2d(x, 2)
        for layer in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(layer)(x)
        return self.attnpool(x)


class ClipReader(nn.Module):
    """Logits `[B, 2]` of images `[B, 3, H, W]` in [-1, 1]: the scaled cosines with the two prompts' features.

    Args:
        tower: Gives the images' features.
        text: Those of the prompts, `[2, D]`, the dark one first.
        scale: Of the cosines.
        preprocess: "clip" resizes (bicubic) and normalises images as those that CLIP was trained on;
            "official" resizes them (bilinear) and leaves them in [-1, 1], as the published code.

    Raises:
        ValueError: an unknown preprocess, or features of another shape.
    """

    text: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, tower: ImageTower, text: Tensor, scale: float, preprocess: str = "clip"):
        super().__init__()
        if preprocess not in PREPROCESSES:
            raise ValueError(f"preprocess must be one of {PREPROCESSES}, got {preprocess!r}")
        wanted = (2, tower.attnpool.c_proj.out_features)
        if tuple(text.shape) != wanted:
            raise ValueError(f"text features must be of shape {wanted}, got {tuple(text.shape)}")
        self.tower, self.scale, self.preprocess = tower, scale, preprocess
        self.register_buffer("text", F.normalize(text, dim=1))
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def prepared(self, images: Tensor) -> Tensor:
        """What the tower sees."""
        size = (self.tower.size, self.tower.size)
        if self.preprocess == "official":
            return F.interpolate(images, size, mode="bilinear", antialias=True)
        images = F.interpolate((images + 1) / 2, size, mode="bicubic", antialias=True)
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        features = F.normalize(self.tower(self.prepared(images)), dim=1)
        return self.scale * features @ self.text.t()


def text_loss(logits: Tensor, *, bright: bool) -> Tensor:
    """How little the images are the prompt that they should be: mean |softmax(logits) - target|.

    Args:
        logits: `[B, 2]`, of the dark and of the bright prompt.
    """
    target = logits.new_tensor([0.0, 1.0] if bright else [1.0, 0.0])
    return (logits.softmax(1) - target).abs().mean()


def load_reader(
    weights: str | os.PathLike[str] | None,
    *,
    preprocess: str = "clip",
    prompts: Sequence[str] = PROMPTS,
    text_features: Tensor | str | os.PathLike[str] | None = None,
) -> ClipReader:
    """A reader with the weights of a file, which is never fetched.

    Known by content: OpenAI's archive (RN50.pt and the other ResNets), or a state dict under the same names
    (.pt, .pth, .safetensors). A file called RN50.pt has to have the hash of the published one.

    Args:
        weights: A path; None for that in the environment's FASTLLIE_CLIP; "open_clip" for what the package
            of that name has in its cache, or fetches, for RN50.
        preprocess: As for `ClipReader`.
        prompts: The dark one and the bright one; others than the published need the package open_clip, for
            their tokens, or `text_features`.
        text_features: Instead of the prompts' own: `[2, D]`, or a file of such (.npy, .safetensors, .pt).

    Raises:
        FileNotFoundError: no such file, or none given: how to get one.
        ImportError: open_clip is asked for, or needed for the prompts, and not installed.
        ValueError: a file that holds no ResNet of CLIP, or is not the one that its name promises.
    """
    if weights == OPEN_CLIP:
        made = _open_clip().create_model("RN50", pretrained="openai", force_quick_gelu=True)
        state, source = made.state_dict(), "open_clip's RN50"
    else:
        path = find_clip(weights)
        state, source = _read(path), str(path)
    state = {key: value.detach().float() for key, value in state.items() if value.is_floating_point()}
    tower = _tower(state, source)
    if text_features is None:
        features = encode_text(state, _tokens(prompts))
    else:
        features = text_features if isinstance(text_features, Tensor) else _features(Path(text_features))
    return ClipReader(tower, features.float(), math.exp(float(state["logit_scale"])), preprocess)


def find_clip(weights: str | os.PathLike[str] | None) -> Path:
    """The file that `weights` means, see `load_reader`.

    Raises:
        FileNotFoundError: no such file, or none given: how to get one.
    """
    given = weights if weights is not None else os.environ.get(VARIABLE)
    if given is None:
        raise FileNotFoundError(
            "the text loss needs the weights of CLIP's RN50, which are not fetched for you: give"
            f" clip_weights=PATH, or {VARIABLE} in the environment, of OpenAI's RN50.pt (SHA-256"
            f" {RN50_SHA256}, from openaipublic.azureedge.net/clip/models/<SHA-256>/RN50.pt) or of the same"
            " tensors as .safetensors or .pth; or clip_weights='open_clip' where that package is installed;"
            " or reader=, a callable that gives logits; or text_loss=None, which trains what the published"
            " code trains"
        )
    path = Path(given)
    if not path.is_file():
        raise FileNotFoundError(f"no such file of CLIP's weights: {path}")
    return path


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"weights of CLIP in {path}: wanted a file that ends in {', '.join(_SUFFIXES)}")
    if path.name == "RN50.pt":
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else ""
            if not found:
                found = hashlib.sha256(file.read()).hexdigest()
        if found != RN50_SHA256:
            raise ValueError(
                f"{path} is not OpenAI's RN50.pt: its SHA-256 is {found}, wanted {RN50_SHA256}; a file of"
                " another making needs another name"
            )
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        return _read_torch(path)
    except Exception as error:  # zip, pickle, safetensors and torch raise their own kinds for a damaged file
        raise ValueError(f"{path} is no readable file of CLIP's weights: {error}") from error


def _read_torch(path: Path) -> Mapping[str, Tensor]:
    with warnings.catch_warnings():
        # PyTorch's own: of the kind of file, and of the way to read it
        warnings.simplefilter("ignore")
        try:
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
        except RuntimeError:
            # OpenAI's are archives of programs, whose tensors alone are taken; nothing of them is run
            return torch.jit.load(path, map_location="cpu").state_dict()
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}")
    return {
        str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)
    }


def _tower(state: Mapping[str, Tensor], source: str) -> ImageTower:
    """The image tower, with the sizes that its tensors have."""
    prefix = "visual."
    mine = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    needed = ("conv3.weight", "attnpool.positional_embedding", "attnpool.c_proj.weight")
    missing = [prefix + key for key in needed if key not in mine]
    missing += [key for key in ("logit_scale",) if key not in state]
    if missing:
        raise ValueError(f"{source} holds no ResNet of CLIP: {', '.join(missing)} missing")
    blocks = [
        len({key.split(".")[1] for key in mine if re.match(rf"layer{layer}\.\d+\.", key)})
        for layer in (1, 2, 3, 4)
    ]
    places = len(mine["attnpool.positional_embedding"]) - 1
    # without weights of its own, which would draw random numbers
    with torch.device("meta"):
        tower = ImageTower(
            len(mine["conv3.weight"]),
            blocks,
            _REDUCTION * math.isqrt(places),
            len(mine["attnpool.c_proj.weight"]),
        )
    wanted = {key: value for key, value in tower.state_dict().items() if value.is_floating_point()}
    # of batches, which nothing reads in a network that is not trained
    counters = {key: torch.zeros(()) for key in tower.state_dict() if key not in wanted}
    wrong = sorted(
        prefix + key
        for key in wanted.keys() | mine.keys()
        if key not in wanted or key not in mine or wanted[key].shape != mine[key].shape
    )
    if wrong:
        raise ValueError(
            f"{source} holds no ResNet of CLIP: {', '.join(wrong[:5])} missing or of other sizes"
        )
    tower.load_state_dict({**mine, **counters}, assign=True)
    return tower


@torch.no_grad()
def encode_text(state: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """Features `[N, D]` of prompts by the text tower that a state dict of CLIP holds.

    Args:
        tokens: `[N, L]` of int64, zeros behind the end.

    Raises:
        ValueError: no text tower in the state dict.
    """
    if "token_embedding.weight" not in state:
        raise ValueError("no text tower among the weights of CLIP: give text_features, [2, D]")

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = state["token_embedding.weight"][tokens] + state["positional_embedding"][: tokens.shape[1]]
    heads = x.shape[-1] // _HEAD
    blocks = {key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")}
    for block in sorted(blocks, key=int):
        name = f"transformer.resblocks.{block}"
        weight, bias = state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
        query, key, value = (
            part.unflatten(2, (heads, -1)).transpose(1, 2)
            for part in F.linear(norm(x, f"{name}.ln_1"), weight, bias).chunk(3, 2)
        )
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + linear(seen.transpose(1, 2).flatten(2), f"{name}.attn.out_proj")
        wide = linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        # the GELU that CLIP was trained with
        x = x + linear(wide * torch.sigmoid(1.702 * wide), f"{name}.mlp.c_proj")
    # the end has the largest number of all tokens
    ends = norm(x, "ln_final")[torch.arange(len(tokens)), tokens.argmax(1)]
    return ends @ state["text_projection"]


def _tokens(prompts: Sequence[str]) -> Tensor:
    if len(prompts) != 2:
        raise ValueError(f"prompts must be two, the dark one and the bright one, got {len(prompts)}")
    if all(prompt in TOKENS for prompt in prompts):
        return torch.tensor([TOKENS[prompt] for prompt in prompts])
    return _open_clip().get_tokenizer("RN50")(list(prompts))


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(
            "this needs the package open_clip: pip install open_clip_torch, or give the weights of CLIP as a"
            " file, and text_features instead of prompts of your own"
        ) from error
    return open_clip


def _features(path: Path) -> Tensor:
    suffix = path.suffix.lower()
    if not path.is_file():
        raise FileNotFoundError(f"no such file of text features: {path}")
    if suffix == ".npy":
        return torch.from_numpy(np.load(path, allow_pickle=False))
    if suffix == ".safetensors":
        found = list(load_file(path).values())
    elif suffix in (".pt", ".pth"):
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = [content] if isinstance(content, Tensor) else []
    else:
        raise ValueError(f"text features in {path}: wanted a file that ends in .npy, .safetensors or .pt")
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} tensors, wanted one: the text features [2, D]")
    return found[0]
