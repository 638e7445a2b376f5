"""CLIP reads images: its files, its towers, and the loss that asks it."""

import sys
import warnings

import numpy as np
import torch
from helpers import refused
from safetensors.torch import save_file

from fastllie.training.losses import clip, clip_towers
from fastllie.training.losses.clip import encode_text, load_reader

# of the tiny CLIP
TEXT_WIDTH, FEATURES = 64, 32


def clip_shapes(width=8, size=224, words=49408):
    """Names and shapes of a tiny CLIP's tensors, and whether they belong to a norm."""
    tower = clip_towers.ImageTower(width, (1, 1, 1, 1), size, FEATURES)
    norms = {name for name, module in tower.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    found = {
        f"visual.{key}": (value.shape, key.rpartition(".")[0] in norms)
        for key, value in tower.state_dict().items()
        if value.is_floating_point()
    }
    wide = TEXT_WIDTH
    for block in range(2):
        name = f"transformer.resblocks.{block}"
        found |= {
            f"{name}.{key}": (shape, "ln_" in key)
            for key, shape in {
                "attn.in_proj_weight": (3 * wide, wide),
                "attn.in_proj_bias": (3 * wide,),
                "attn.out_proj.weight": (wide, wide),
                "attn.out_proj.bias": (wide,),
                "ln_1.weight": (wide,),
                "ln_1.bias": (wide,),
                "ln_2.weight": (wide,),
                "ln_2.bias": (wide,),
                "mlp.c_fc.weight": (4 * wide, wide),
                "mlp.c_fc.bias": (4 * wide,),
                "mlp.c_proj.weight": (wide, 4 * wide),
                "mlp.c_proj.bias": (wide,),
            }.items()
        }
    found |= dict.fromkeys(("ln_final.weight", "ln_final.bias"), ((wide,), True))
    return found | {
        "token_embedding.weight": ((words, wide), False),
        "positional_embedding": ((77, wide), False),
        "text_projection": ((wide, FEATURES), False),
        "logit_scale": ((), False),
    }


def random_clip(seed=0):
    """A state dict of a tiny CLIP for images of 64 pixels."""
    random = torch.Generator().manual_seed(seed)
    found = {}
    for key, (shape, norm) in clip_shapes(4, 64).items():
        value = torch.randn(shape, generator=random)
        if norm:
            value = (value.abs() if "var" in key else 0.1 * value) + ("weight" in key)
        elif len(shape) == 4:
            value = value * (2 / np.prod(shape[1:])) ** 0.5
        else:
            value = 0.1 * value
        found[key] = value
    return {**found, "logit_scale": torch.tensor(2.3)}


def test_clip_is_read_from_any_of_its_files(clip_file, tmp_path, monkeypatch):
    images = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(1)) * 2 - 1
    wanted = load_reader(clip_file)(images)
    state = random_clip()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "t.pth")
    torch.testing.assert_close(load_reader(tmp_path / "t.pth")(images), wanted)
    monkeypatch.setenv(clip.VARIABLE, str(clip_file))
    torch.testing.assert_close(load_reader(None)(images), wanted)
    # as CLIP's own preparation, but for the crop
    reader = load_reader(clip_file)
    flat = reader.prepared(torch.full((1, 3, 50, 60), 0.2))[0].mean((1, 2))
    torch.testing.assert_close(flat, (0.6 - torch.tensor(clip._MEAN)) / torch.tensor(clip._STD))
    raw = load_reader(clip_file, preprocess="official").prepared(torch.full((1, 3, 50, 60), 0.2))
    torch.testing.assert_close(raw, torch.full((1, 3, 64, 64), 0.2))
    assert not any(value.requires_grad for value in reader.parameters())


def test_an_archive_of_a_program_gives_its_tensors(tmp_path):
    class Holder(torch.nn.Module):
        def __init__(self, state):
            super().__init__()
            for key, value in state.items():
                *path, name = key.split(".")
                module = self
                for part in path:
                    if not hasattr(module, part):
                        module.add_module(part, torch.nn.Module())
                    module = getattr(module, part)
                module.register_buffer(name, value)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    state = {key: value.half() if value.dim() == 4 else value for key, value in random_clip().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Holder(state)).save(str(tmp_path / "archive.pt"))
    images = torch.rand(1, 3, 30, 30)
    plain = tmp_path / "plain.safetensors"
    save_file(state, plain)
    archived = load_reader(tmp_path / "archive.pt")
    torch.testing.assert_close(archived(images), load_reader(plain)(images))


def test_text_features_stand_for_prompts(clip_file, tmp_path):
    images = torch.rand(1, 3, 30, 30)
    own = encode_text(random_clip(), clip._tokens(clip.PROMPTS))
    np.save(tmp_path / "text.npy", own.numpy())
    save_file({"text": own}, tmp_path / "text.safetensors")
    torch.save(own, tmp_path / "text.pt")
    wanted = load_reader(clip_file)(images)
    for features in (own, tmp_path / "text.npy", tmp_path / "text.safetensors", tmp_path / "text.pt"):
        torch.testing.assert_close(load_reader(clip_file, text_features=features)(images), wanted)
    # an image tower alone will do then
    visual = {key: value for key, value in random_clip().items() if key.startswith(("visual", "logit"))}
    save_file(visual, tmp_path / "visual.safetensors")
    torch.testing.assert_close(
        load_reader(tmp_path / "visual.safetensors", text_features=own)(images), wanted
    )
    with refused(ValueError, "no text tower"):
        load_reader(tmp_path / "visual.safetensors")
    with refused(ValueError, "(2, 32), got (3, 32)"):
        load_reader(clip_file, text_features=torch.zeros(3, 32))
    with refused(FileNotFoundError, "no such file of text features"):
        load_reader(clip_file, text_features=tmp_path / "none.npy")
    save_file({"a": own, "b": own.clone()}, tmp_path / "two.safetensors")
    with refused(ValueError, "holds 2 tensors"):
        load_reader(clip_file, text_features=tmp_path / "two.safetensors")
    (tmp_path / "text.txt").write_text("")
    with refused(ValueError, "ends in .npy"):
        load_reader(clip_file, text_features=tmp_path / "text.txt")


class OpenClip:
    """What of open_clip is used, with a tiny model."""

    @staticmethod
    def create_model(name, *, pretrained, force_quick_gelu):
        assert (name, pretrained, force_quick_gelu) == ("RN50", "openai", True)

        class Model:
            def state_dict(self):
                return random_clip()

        return Model()

    @staticmethod
    def get_tokenizer(name):
        assert name == "RN50"
        return lambda prompts: torch.tensor([[49406, len(prompt), 49407, 0] for prompt in prompts])


def test_open_clip_gives_weights_and_tokens_where_it_is_installed(clip_file, monkeypatch):
    images = torch.rand(1, 3, 30, 30)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with refused(ImportError, "pip install open_clip_torch"):
        load_reader("open_clip")
    with refused(ImportError, "text_features instead of prompts"):
        load_reader(clip_file, prompts=("night", "day"))
    monkeypatch.setitem(sys.modules, "open_clip", OpenClip)
    torch.testing.assert_close(load_reader("open_clip")(images), load_reader(clip_file)(images))
    other = load_reader(clip_file, prompts=("night", "day"))(images)
    assert not torch.allclose(other, load_reader(clip_file)(images))
    with refused(ValueError, "prompts must be two"):
        load_reader(clip_file, prompts=("night",))


def test_files_that_are_no_clip_are_told(clip_file, tmp_path, monkeypatch):
    monkeypatch.delenv(clip.VARIABLE, raising=False)
    with refused(FileNotFoundError, "clip_weights=PATH", "open_clip", "reader=", "text_loss=None"):
        load_reader(None)
    with refused(FileNotFoundError, "no such file of CLIP's weights"):
        load_reader(tmp_path / "none.pt")
    (tmp_path / "RN50.pt").write_bytes(b"else")
    with refused(ValueError, "is not OpenAI's RN50.pt", clip.RN50_SHA256):
        load_reader(tmp_path / "RN50.pt")
    (tmp_path / "bad.pt").write_bytes(b"else")
    with refused(ValueError, "no readable file of CLIP's weights"):
        load_reader(tmp_path / "bad.pt")
    torch.save([1, 2], tmp_path / "list.pth")
    with refused(ValueError, "holds a list"):
        load_reader(tmp_path / "list.pth")
    (tmp_path / "clip.bin").write_bytes(b"")
    with refused(ValueError, "ends in .pt"):
        load_reader(tmp_path / "clip.bin")
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with refused(ValueError, "no ResNet of CLIP", "visual.conv3.weight"):
        load_reader(tmp_path / "other.safetensors")
    state = random_clip()
    state["visual.layer2.0.conv1.weight"] = torch.zeros(3, 3, 1, 1)
    save_file(state, tmp_path / "odd.safetensors")
    with refused(ValueError, "visual.layer2.0.conv1.weight missing or of other sizes"):
        load_reader(tmp_path / "odd.safetensors")
    with refused(ValueError, "preprocess must be one of"):
        load_reader(clip_file, preprocess="none")
