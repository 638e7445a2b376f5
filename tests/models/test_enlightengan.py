"""EnlightenGAN: its networks against the published, sizes, files, tiles in bounded memory, exports."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import picture, random_network, refused, same_levels, write_weights
from PIL import Image
from safetensors.torch import load_file
from serving import HOME

import fastllie
from fastllie import checkpoint, cli
from fastllie.checkpoint.pretrained import to_file
from fastllie.inference import tiles
from fastllie.inference.tiles import on_grid
from fastllie.models import EnlightenGAN
from fastllie.models.contract import Grid
from fastllie.models.enlightengan import HALO, Discriminator, attention

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "enlightengan"
needs_shared = pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared/golden/enlightengan is not here")
# one that reaches further into [0, 1] than the first
SEED = 1


@pytest.fixture
def weights(tmp_path):
    return write_weights(tmp_path / "w.safetensors", "enlightengan", seed=SEED)


def network(**options):
    return random_network("enlightengan", seed=SEED, **options).requires_grad_(False)


def noise(*shape, dtype=torch.float32, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).mul(0.5).to(dtype)


def close(got, want, atol):
    torch.testing.assert_close(got, want, rtol=0, atol=atol)


# --- the published networks


class Golden:
    """Arrays of one file of golden data, and comparison within the tolerances of the manifest."""

    def __init__(self, file):
        manifest = json.loads((GOLDEN / "manifest.json").read_text())["files"][file]
        self.tolerances = manifest["tolerances"]
        self.names = manifest.get("param_names_in_t_grad_norms_order")
        with np.load(GOLDEN / file) as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    def image(self, name):
        """Pixels as the generator gets them, `[B, 3, H, W]` in [-1, 1]."""
        pixels = self.arrays[name]
        return (pixels.reshape(-1, *pixels.shape[-3:]).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5

    def check(self, name, got):
        want, allowed = self.arrays[name], self.tolerances[name]
        close(got.detach().reshape(want.shape), want, allowed["atol"])
        if "cosine_min" in allowed:
            assert F.cosine_similarity(got.flatten(), want.flatten(), dim=0) >= allowed["cosine_min"]


@cache
def generator_values():
    return Golden("eg_generator.npz")


@cache
def discriminator_values():
    return Golden("eg_discriminators.npz")


def deterministic(module, prefix):
    """The module with the parameters of the golden data."""
    spec = importlib.util.spec_from_file_location("det_init", GOLDEN / "det_init.py")
    drawn = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawn)
    shapes = {key: value.shape for key, value in module.state_dict().items()}
    state = {key: torch.from_numpy(np.asarray(v)) for key, v in drawn.state_dict(prefix, shapes).items()}
    module.load_state_dict(state)
    return module


@pytest.fixture(scope="module")
def published():
    return deterministic(EnlightenGAN(), "G").eval()


@needs_shared
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("case", ["a", "b"])
def test_generator_matches_the_published(published, case, align_corners, monkeypatch):
    golden = generator_values()
    monkeypatch.setattr(published, "align_corners", align_corners)
    suffix = "_ac1" if align_corners else ""
    v = golden.image(f"{case}_img_u8")
    with torch.no_grad():
        image, residual = published.generate(v, attention(v))
        golden.check(f"{case}_out{suffix}", image)
        golden.check(f"{case}_latent{suffix}", residual)
        close(published((v + 1) / 2), ((image + 1) / 2).clamp(0, 1), 1e-5)


@needs_shared
def test_wide_images_are_halved_as_published(published, monkeypatch):
    golden = generator_values()
    monkeypatch.setattr(published, "halve_wide", True)
    v = golden.image("c_img_u8")
    want = ((golden.arrays["c_out"] + 1) / 2).clamp(0, 1)
    with torch.no_grad():
        got = published((v + 1) / 2)[0]
        golden.check(
            "c_latent", published.generate(F.avg_pool2d(v, 2), F.avg_pool2d(attention(v), 2)).residual
        )
        close(got[..., :2210], want, golden.tolerances["c_out"]["atol"])
        # the column that the published code loses
        assert torch.equal(got[..., 2210], got[..., 2209])
        narrow = published((v[..., :2200] + 1) / 2)
        monkeypatch.setattr(published, "halve_wide", False)
        assert torch.equal(published((v[..., :2200] + 1) / 2), narrow)
        assert (published((v + 1) / 2)[0, ..., :2210] - want).abs().max() > 0.1


@needs_shared
def test_training_mode_matches_the_published():
    golden = generator_values()
    model = deterministic(EnlightenGAN(), "G").train()
    v = golden.image("t_img_u8").requires_grad_()
    g = attention(v).detach().requires_grad_()
    image, residual = model.generate(v, g)
    golden.check("t_out", image)
    golden.check("t_latent", residual)
    loss = image.square().mean()
    golden.check("t_loss", loss)
    loss.backward()
    golden.check("t_grad_input", v.grad)
    golden.check("t_grad_gray", g.grad)
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    assert sorted(parameters) == sorted(golden.names)
    golden.check("t_grad_norms", torch.stack([parameters[name].grad.norm() for name in golden.names]))
    for key in golden.arrays:
        if key.startswith("t_grad/"):
            golden.check(key, parameters[key.removeprefix("t_grad/")].grad)
        elif key.startswith("t_after/"):
            golden.check(key, buffers[key.removeprefix("t_after/")])


@needs_shared
def test_training_mode_with_aligned_corners():
    golden = generator_values()
    model = deterministic(EnlightenGAN(align_corners=True), "G").train()
    v = golden.image("t_img_u8")
    with torch.no_grad():
        golden.check("t_out_ac1", model.generate(v, attention(v)).image)


@needs_shared
@pytest.mark.parametrize(("name", "layers", "source"), [("D_A", 5, "glob_u8"), ("D_P", 4, "patch_u8")])
def test_discriminators_match_the_published(name, layers, source):
    golden = discriminator_values()
    model = deterministic(Discriminator(layers), name)
    with torch.no_grad():
        golden.check(f"{name}_out_75x101", model(golden.image("odd_u8")))
        golden.check(f"{name}_out_patch32", model(golden.image("patch_u8")))
        if source == "glob_u8":
            golden.check("D_A_out_96x128", model(golden.image(source)))
    # in float64: at a leaky ReLU's kink float32 takes either slope, each processor its own
    v = golden.image(source).double().requires_grad_()
    model.double()(v).square().mean().backward()
    golden.check(f"{name}_grad_input", v.grad.float())
    golden.check(f"{name}_grad_norms", torch.stack([p.grad.norm() for p in model.parameters()]).float())


# --- the networks themselves


def plainly(model, x):
    """The generator as the specification's table tells it, on sides that are multiples of 16."""

    def block(name, features):
        features = F.leaky_relu(getattr(model, f"conv{name}")(features), 0.2)
        return getattr(model, f"bn{name}")(features) if name != "9_2" else features

    v = 2 * x - 1
    g = [1 - (0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:])]
    skips, features = [], torch.cat([v, g[0]], 1)
    for level in "1234":
        skips.append(block(f"{level}_2", block(f"{level}_1", features)))
        features = F.max_pool2d(skips[-1], 2)
        g.append(F.max_pool2d(g[-1], 2))
    features = block("5_2", g[4] * block("5_1", features))
    for level in (6, 7, 8, 9):
        up = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=model.align_corners)
        up = getattr(model, f"deconv{level - 1}")(up)
        joined = torch.cat([up, skips[9 - level] * g[9 - level]], 1)
        features = block(f"{level}_2", block(f"{level}_1", joined))
    return ((v + model.conv10(features) * g[0] + 1) / 2).clamp(0, 1)


@pytest.mark.parametrize("align_corners", [False, True])
def test_generator_is_the_specified_network(align_corners):
    model = network(width=3, align_corners=align_corners).double()
    x = noise(2, 3, 48, 80, dtype=torch.float64)
    want = plainly(model, x)
    assert (want - x).abs().max() > 0.1
    close(model(x), want, 1e-12)
    assert sum(p.numel() for p in EnlightenGAN().parameters()) == 8_636_675
    assert len(EnlightenGAN().state_dict()) == 131


SIZES = [(1, 1), (1, 40), (2, 3), (5, 5), (5, 6), (6, 6), (15, 17), (16, 16), (75, 101)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size(size):
    """Completed by hand to multiples of 16, half before and half after, and cut again."""
    model = network().double()
    x = noise(2, 3, *size, dtype=torch.float64)
    got = model(x)
    assert got.shape == x.shape
    whole, window = x, [slice(None), slice(None)]
    for dim, side in zip((2, 3), size, strict=True):
        missing = -side % 16
        before = missing // 2
        pad = [0, 0, 0, 0]
        pad[6 - 2 * dim : 8 - 2 * dim] = before, missing - before
        whole = F.pad(whole, pad, mode="reflect" if missing - before < side else "replicate")
        window.append(slice(before, before + side))
    close(got, plainly(model, whole)[tuple(window)], 1e-12)
    for one, image in zip(got, x, strict=True):
        close(model(image[None])[0], one, 1e-12)


@pytest.mark.parametrize("side", range(1, 50))
def test_completed_sides(side):
    index = EnlightenGAN.completed(side).tolist()
    before = (-side % 16) // 2
    assert len(index) == side + -side % 16
    assert index[before : before + side] == list(range(side))
    if side >= 6:
        assert index == np.pad(np.arange(side), (before, -side % 16 - before), mode="reflect").tolist()
    else:
        assert index == np.pad(np.arange(side), (before, -side % 16 - before), mode="edge").tolist()


def test_a_single_wide_row_is_not_halved():
    x = noise(1, 3, 1, 2300)
    assert torch.equal(network(halve_wide=True)(x), network()(x))
    assert network(halve_wide=True)(noise(1, 3, 2, 2300)).shape == (1, 3, 2, 2300)


def test_no_images():
    assert network()(torch.rand(0, 3, 20, 30)).shape == (0, 3, 20, 30)


def test_layouts_in_memory():
    model, x = network(), noise(2, 3, 37, 53)
    want = model(x)
    for other in (
        x.contiguous(memory_format=torch.channels_last),
        noise(2, 3, 37, 53).transpose(2, 3).contiguous().transpose(2, 3),
        F.pad(x, (3, 4, 5, 6))[..., 5:-6, 3:-4],
        x[:1].expand(2, -1, -1, -1),
    ):
        reference = want if torch.equal(other, x) else want[:1].expand(2, -1, -1, -1)
        before = other.clone()
        close(model(other), reference, 1e-5)
        assert torch.equal(other, before)
    close(network().to(memory_format=torch.channels_last)(x), want, 1e-5)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_dtypes(dtype, atol):
    x = noise(1, 3, 50, 66, dtype=dtype)
    got = network().to(dtype)(x)
    assert got.dtype == dtype
    close(got.double(), network().double()(x.double()), atol)


def test_gradients_reach_every_parameter():
    for mode in (True, False):
        model = random_network("enlightengan", seed=SEED).train(mode)
        x = noise(2, 3, 33, 47).requires_grad_()
        model(x).square().mean().backward()
        assert x.grad.abs().sum() > 0
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert (parameter.grad != 0).any(), name


def test_gradients_are_those_of_the_formula():
    model = random_network("enlightengan", width=1, seed=SEED).double()
    x = noise(1, 3, 16, 17, dtype=torch.float64).requires_grad_()
    # along a few directions: sixteen pixels see each other through five levels
    assert torch.autograd.gradcheck(model, (x,), fast_mode=True)


@pytest.mark.parametrize("layers", [1, 4])
def test_discriminators_of_small_width(layers):
    model = Discriminator(layers, width=2).double()
    v = torch.rand(1, 3, 9, 11, dtype=torch.float64, requires_grad=True)
    height, width = 9, 11
    for _ in range(layers):
        height, width = height // 2 + 1, width // 2 + 1
    assert model(v).shape == (1, 1, height + 2, width + 2)
    assert torch.autograd.gradcheck(model, (v,))


@pytest.mark.parametrize("width", [0, -1, 1.5, True, "32"])
def test_impossible_widths(width):
    with refused(ValueError, f"width must be an integer >= 1, got {width!r}"):
        EnlightenGAN(width=width)


@pytest.mark.parametrize("name", ["align_corners", "halve_wide"])
def test_switches_are_true_or_false(name):
    with refused(ValueError, f"{name} must be True or False, got 'yes'"):
        EnlightenGAN(**{name: "yes"})


def test_halo_is_what_a_pixel_depends_on():
    """With positive weights nothing cancels; several images, because a maximum has one winner."""
    model = EnlightenGAN(width=1).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_().add_(0.05)
    reach = 0
    for place in range(16):
        x = torch.rand(24, 3, 16, 320, dtype=torch.float64, requires_grad=True)
        model.generate(x, torch.rand(24, 1, 16, 320, dtype=torch.float64)).image[
            ..., 8, 152 + place
        ].sum().backward()
        seen = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
        reach = max(reach, 152 + place - int(seen[0]), int(seen[-1]) - 152 - place)
    assert 128 < reach <= HALO
    assert EnlightenGAN(width=1).contract.halo == HALO
    assert EnlightenGAN(width=1, align_corners=True).contract.halo is None
    assert EnlightenGAN(width=1, halve_wide=True).contract.halo is None


# --- files


def published_state(model):
    """As torch 0.3.1 wrote it out of DataParallel: a prefix, no counters of batches."""
    return {
        f"module.{key}": value
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("width", [1, 3, 32])
def test_the_published_layout_loads_at_any_width(tmp_path, width, suffix):
    model = network(width=width)
    path = tmp_path / f"200_net_G_A.{suffix}"
    if suffix == "pth":
        torch.save(published_state(model), path)
    else:
        checkpoint.write(path, published_state(model), {})
    loaded = fastllie.load("enlightengan", path)
    assert (loaded.width, loaded.align_corners, loaded.halve_wide) == (width, False, False)
    assert not loaded.training
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    x = noise(1, 3, 16, 20)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_halves_load_as_float32_and_the_file_tells_the_corners(tmp_path):
    model = network(align_corners=True)
    path = tmp_path / "w.safetensors"
    state = {key: v.half() if v.is_floating_point() else v for key, v in model.state_dict().items()}
    checkpoint.write(path, state, {"method": "enlightengan", "width": "2", "align_corners": "True"})
    loaded = fastllie.load("enlightengan", path)
    assert loaded.align_corners
    assert {v.dtype for v in loaded.state_dict().values()} == {torch.float32, torch.int64}
    x = noise(1, 3, 40, 30)
    with torch.no_grad():
        close(loaded(x), model(x), 5e-3)
        other = fastllie.load("enlightengan", path, align_corners=False)
        assert not other.align_corners
        assert (other(x) - loaded(x)).abs().max() > 1e-3
    checkpoint.write(path, state, {"align_corners": "yes"})
    with refused(ValueError, "align_corners in the file must be 'True' or 'False', got 'yes'"):
        fastllie.load("enlightengan", path)


def test_what_is_exported_has_the_published_layout(tmp_path):
    model = network(width=32)
    checkpoint.export_official(model, tmp_path / "200_net_G_A.pth")
    found = torch.load(tmp_path / "200_net_G_A.pth", weights_only=True)
    want = published_state(model)
    assert list(found) == list(want)
    assert all(torch.equal(found[key], want[key]) for key in want)
    # as the published scripts do
    torch.nn.DataParallel(EnlightenGAN()).load_state_dict(found)
    assert fastllie.load("enlightengan", tmp_path / "200_net_G_A.pth").width == 32
    with refused(ValueError, "the width 32 alone, the network has 2"):
        checkpoint.export_official(network(), tmp_path / "narrow.pth")
    with refused(TypeError, "network must be an SCI, an EnlightenGAN or a NeRCo, got Conv2d"):
        checkpoint.export_official(torch.nn.Conv2d(3, 3, 1), tmp_path / "other.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["200_net_G_A.pth"]


def test_keys_that_do_not_fit_are_listed(tmp_path):
    state = published_state(network())
    del state["module.bn3_1.running_var"]
    state["module.conv10.weight"] = torch.zeros(3, 5, 1, 1)
    state["module.bn9_2.running_mean"] = torch.zeros(2)
    path = tmp_path / "foreign.pth"
    torch.save(state, path)
    with refused(
        ValueError,
        f"{path} does not fit 'enlightengan':",
        "missing: bn3_1.running_var (8,)",
        "bn9_2.running_mean (2,)",
        "wrong shape: conv10.weight (3, 5, 1, 1), wanted (3, 2, 1, 1)",
    ):
        fastllie.load("enlightengan", path)
    for bad in (torch.zeros(()), torch.zeros(0, 4, 3, 3)):
        torch.save({**published_state(network()), "module.conv1_1.weight": bad}, path)
        with refused(ValueError, f"wrong shape: conv1_1.weight {tuple(bad.shape)}"):
            fastllie.load("enlightengan", path)


def test_weights_of_another_method(tmp_path, weights):
    told = f"{weights} holds weights of 'enlightengan', wanted weights of 'sci'"
    with refused(ValueError, told):
        fastllie.load("sci", weights)
    other = write_weights(tmp_path / "sci.safetensors", "sci")
    with refused(ValueError, f"{other} holds weights of 'sci', wanted weights of 'enlightengan'"):
        fastllie.load("enlightengan", other)


# --- tiles


@pytest.mark.parametrize("size", [(75, 101), (333, 501), (641, 350), (1, 640)], ids=str)
@pytest.mark.parametrize("tile", [1, 16, 50, 200])
def test_tiles_give_the_untiled_result(size, tile):
    model, x = network(), noise(1, 3, *size)
    whole, seen = model(x), []

    def run(piece):
        seen.append(piece.shape[-2:])
        return model(piece)

    got = on_grid(run, x, tile, HALO, Grid(16, model.completed, 1.0))
    assert (whole - x).abs().max() > 0.1
    close(got, whole, 2e-6)
    assert len(seen) > 1 or max(size) <= tile + 2 * HALO
    limit = -(-tile // 16) * 16 + 2 * HALO
    for sides in seen:
        if len(seen) > 1:
            assert all(side <= limit and side % 16 == 0 for side in sides)


def test_a_narrower_halo_would_not_do():
    model, x = network(), noise(1, 3, 33, 501)
    got = on_grid(model, x, 48, 32, Grid(16, model.completed, 1.0))
    assert (got - model(x)).abs().max() > 1e-4


def test_automatic_tiles_compute_the_least_within_memory(monkeypatch):
    model, x = network(), noise(3, 3, 700, 950)
    seen = []

    def run(piece):
        seen.append(tuple(piece.shape))
        return model(piece)

    monkeypatch.setattr(tiles, "CPU_BYTES", 400_000)
    whole = model(x)
    close(on_grid(run, x, "auto", HALO, Grid(16, model.completed, 1.0)), whole, 2e-6)
    assert len(set(seen)) == 1
    assert max(h * w for _, _, h, w in seen) <= 400_000
    # two tiles of 704x624 take too much, three of 704x512 do not; every other division has more pixels
    assert seen == [(1, 3, 704, 512)] * 9
    seen.clear()
    # small images go together, as many as fit
    small = x[..., :300, :400]
    close(on_grid(run, small, "auto", HALO, Grid(16, model.completed, 1.0)), model(small), 2e-6)
    assert [shape[0] for shape in seen] == [3]


def test_every_division_covers_every_pixel_once():
    for length in range(16, 2000, 112):
        for count in range(1, tiles._count(length, 16, HALO) + 1):
            end = 0
            for first, last, start, stop in tiles._windows(length, count, HALO, 16):
                assert start == end
                end = stop
                assert 0 <= first <= start < stop <= last <= length
                assert first % 16 == last % 16 == 0
                # the halo, or the border of the image
                assert first == 0 or start - first >= HALO
                assert last == length or last - stop >= HALO
            assert end == length


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_enhance_in_tiles(weights, channels, strength):
    frame = np.asarray(picture(size=(501, 333), brightest=120))
    settings = {"weights": weights, "channels": channels, "strength": strength}
    whole = fastllie.enhance(frame, "enlightengan", tile=None, **settings)
    got = fastllie.enhance(frame, "enlightengan", tile=40, **settings)
    assert same_levels(got, whole.astype(np.int64))
    assert np.array_equal(fastllie.enhance(frame, "enlightengan", **settings), whole)
    out = np.empty_like(frame)
    enhancer = fastllie.Enhancer("enlightengan", tile=40, **settings)
    assert enhancer.preprocess(frame, out=out) is out
    assert np.array_equal(out, got)
    assert enhancer.batch([frame, frame[:20]])[1].shape == (20, 501, 3)


@pytest.mark.parametrize("options", [{"align_corners": True}, {"halve_wide": True}], ids=str)
def test_the_whole_image_fades_where_tiles_cannot_be_exact(weights, options, monkeypatch):
    frame = np.array(picture(size=(2304, 240), brightest=120))
    enhancer = fastllie.Enhancer("enlightengan", weights=weights, **options)
    whole = enhancer(frame)
    model = fastllie.load("enlightengan", weights, **options)
    x = torch.from_numpy(frame).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        want = (model(x)[0] * 255 + 0.5).floor().permute(1, 2, 0).numpy()
    assert same_levels(whole, want.astype(np.int64))
    seen = []
    forward = EnlightenGAN.forward

    def watched(self, x, **how):
        seen.append((x.shape[-1], how))
        return forward(self, x, **how)

    monkeypatch.setattr(EnlightenGAN, "forward", watched)
    monkeypatch.setattr(
        tiles, "CPU_BYTES", 640**2 * model.contract.grid.pixel_bytes / (4 if "halve_wide" in options else 1)
    )
    got = enhancer(frame)
    # a tile of a wide image is halved as the whole is
    assert {how.get("wide") for _, how in seen} == {True if "halve_wide" in options else None}
    assert len(seen) > 2
    assert max(width for width, _ in seen) <= 640
    assert np.abs(got.astype(int) - whole).mean() < 1
    assert np.array_equal(
        fastllie.enhance(frame, "enlightengan", weights=weights, tile=None, **options), whole
    )
    with refused(ValueError, "tile must be 'auto' or None, got 64", "the whole image"):
        fastllie.enhance(frame, "enlightengan", weights=weights, tile=64, **options)


PEAK = """
import resource, sys
import numpy as np
import fastllie
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
enhancer = fastllie.Enhancer("enlightengan", weights=sys.argv[1], device="cpu")
frame = np.random.default_rng(0).integers(0, 90, (1500, 2000, 3), dtype=np.uint8)
enhancer(frame[:40, :40])
fastllie.inference.tiles.CPU_BYTES = int(sys.argv[2])
before = peak()
enhancer(frame)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_memory_is_bounded(tmp_path):
    """A smaller budget than the usual one: the peak follows it."""
    path = write_weights(tmp_path / "w.safetensors", "enlightengan", width=8)
    budget = 150_000_000
    program = PEAK.replace("import fastllie\n", "import fastllie.inference.tiles\n")
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(budget)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    # the image's result, and what convolutions keep
    assert int(done.stdout) < 1.6 * budget


# --- as every method


def test_kinds_and_halves(weights):
    image = picture(size=(53, 37), brightest=120)
    want = fastllie.enhance(image, "enlightengan", weights=weights)
    assert want.size == image.size
    got = np.asarray(want)
    assert got.mean() > np.asarray(image).mean() + 10
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    y = fastllie.enhance(x, "enlightengan", weights=weights)
    assert same_levels(got, np.floor(y.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.int64))
    half = fastllie.Enhancer("enlightengan", weights=weights, dtype=torch.bfloat16)
    assert np.abs(np.asarray(half(image)).astype(int) - got).max() <= 6
    again = pickle.loads(pickle.dumps(half))
    assert np.array_equal(np.asarray(again(image)), np.asarray(half(image)))
    pair = np.stack([np.asarray(image)] * 2)
    assert same_levels(fastllie.enhance(pair, "enlightengan", weights=weights)[1], got.astype(np.int64))


def test_compiled_code_serves_every_size(weights, monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **how: real(model, backend="eager", **how))
    enhancer = fastllie.Enhancer("enlightengan", weights=weights, compile=True)
    for height, width in ((40, 50), (5, 17)):
        frame = np.asarray(picture(size=(width, height), brightest=120))
        want = fastllie.enhance(frame, "enlightengan", weights=weights)
        assert same_levels(enhancer(frame), want.astype(np.int64))


def test_info_and_options(weights):
    row = fastllie.info("enlightengan")
    assert (row.parameters, row.halo) == (8_636_675, HALO)
    assert [option.name for option in row.options] == ["align_corners", "halve_wide"]
    with refused(TypeError, "enlightengan has no option 'scale'; its options are: align_corners, halve_wide"):
        fastllie.load("enlightengan", weights, scale=2)


def test_command_line(tmp_path, weights, capsys):
    image = picture(size=(60, 44), brightest=120)
    image.save(tmp_path / "dark.png")
    arguments = [
        "enhance",
        str(tmp_path / "dark.png"),
        "-o",
        str(tmp_path / "b.png"),
        "--method",
        "enlightengan",
    ]
    assert cli.main([*arguments, "--weights", str(weights), "--option", "align_corners=true"]) == 0
    want = fastllie.enhance(image, "enlightengan", weights=weights, align_corners=True)
    with Image.open(tmp_path / "b.png") as found:
        assert np.array_equal(np.asarray(found), np.asarray(want))
    capsys.readouterr()
    assert cli.main(["methods", "enlightengan"]) == 0
    assert "8,636,675" in capsys.readouterr().out


# --- exports


def checked(run, weights, least=17):
    model = fastllie.load("enlightengan", weights)
    for shape in ((1, 3, least, least), (2, 3, 41, 29), (1, 3, 64, 203)):
        x = noise(*shape, seed=2)
        with torch.no_grad():
            want = model(x)
        assert (want - x).abs().max() > 0.1
        close(run(x), want, 1e-4)


def test_onnx_at_any_size(tmp_path, weights, capsys):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    target = tmp_path / "m.onnx"
    assert cli.main(["export", "enlightengan", "--weights", str(weights), "-o", str(target)]) == 0
    assert "ONNX Runtime" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(target)
    checked(lambda x: torch.from_numpy(session.run(None, {"image": x.numpy()})[0]), weights)


def test_program_at_any_size(tmp_path, weights):
    result = fastllie.export("enlightengan", tmp_path / "m.pt2", weights=weights)
    checked(torch.export.load(result.path).module(), weights)
    with refused(ValueError, "halve_wide cannot be exported"):
        fastllie.export("enlightengan", tmp_path / "n.pt2", weights=weights, halve_wide=True)


def test_file_of_weights_as_training_writes_it(weights):
    state = load_file(weights)
    assert state["bn1_1.num_batches_tracked"].dtype == torch.int64
    assert fastllie.load("enlightengan", weights).width == 2


# --- what the network sees


@pytest.mark.parametrize("in_logits", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_network_that_sees_logits_is_the_same_network_on_other_values(in_logits, dtype):
    model = network(in_logits=in_logits, sees_logits=True)
    x = noise(2, 3, 37, 51).to(dtype)
    values = x.float().clamp(0.5 / 255, 1 - 0.5 / 255)
    seen = ((values / (1 - values)).log() / np.log(509)).to(dtype)
    assert seen.abs().max() <= 1
    model = model.to(dtype)
    rows, columns = (EnlightenGAN.completed(side) for side in x.shape[-2:])
    v, g = 2 * x - 1, attention(2 * x - 1)
    given = [image.index_select(2, rows).index_select(3, columns) for image in (seen, g)]
    residual = model._by_layers(*given)[..., 5 : 5 + 37, 6 : 6 + 51]
    wanted = (
        torch.sigmoid(2 * residual.float() + (values / (1 - values)).log())
        if in_logits
        else ((v + residual + 1) / 2).clamp(0, 1)
    )
    close(model(x).float(), wanted.float(), 1e-5 if dtype == torch.float32 else 2e-2)
    close(model(x).float(), model.standard(x).float(), 1e-5 if dtype == torch.float32 else 2e-2)


def test_what_a_network_sees_is_in_its_file(tmp_path):
    model = network(in_logits=True, sees_logits=True)
    path = write_weights(tmp_path / "w.safetensors", "enlightengan", seed=SEED, sees_logits=True)
    assert fastllie.load("enlightengan", path).sees_logits
    plain = write_weights(tmp_path / "plain.safetensors", "enlightengan", seed=SEED)
    assert not fastllie.load("enlightengan", plain).sees_logits
    (tmp_path / "hub.safetensors").write_bytes(to_file("enlightengan", model))
    again = fastllie.load("enlightengan", tmp_path / "hub.safetensors")
    assert again.sees_logits
    assert again.in_logits
    x = noise(1, 3, 40, 40)
    close(again(x), model(x), 1e-6)
    with refused(ValueError, "the published code has the width 32 alone"):
        checkpoint.export_official(model, tmp_path / "official.pth")
    with refused(ValueError, "the published code knows no logits"):
        checkpoint.export_official(EnlightenGAN(sees_logits=True), tmp_path / "official.pth")
    with refused(ValueError, "sees_logits must be True or False, got 1"):
        EnlightenGAN(sees_logits=1)


def test_tiles_of_a_network_that_sees_logits_are_exact(tmp_path):
    weights = write_weights(tmp_path / "w.safetensors", "enlightengan", seed=SEED, sees_logits=True)
    x = noise(1, 3, 500, 330)
    whole = fastllie.Enhancer("enlightengan", weights=weights, device="cpu")(x)
    parts = fastllie.Enhancer("enlightengan", weights=weights, device="cpu", tile=320)(x)
    close(parts, whole, 1e-5)
