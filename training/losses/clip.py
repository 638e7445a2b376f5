"""CLIP's ResNets as readers of light: two prompts against an image; frozen, from a file of the user's."""

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from fastllie.training.losses.clip_towers import ImageTower, encode_text, tower_of

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
_SUFFIXES = (".pt", ".pth", ".safetensors")
_WRAPPERS = ("state_dict", "model")


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
    tower = tower_of(state, source)
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
