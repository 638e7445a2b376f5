"""SCI: its networks and their files, its losses and its training, against the published where at hand."""

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refused, same_levels, write_weights
from PIL import Image
from safetensors.torch import load_file

import fastllie
from fastllie import checkpoint
from fastllie.models import SCI
from fastllie.models.sci import IlluminationModule, largest_of_four
from fastllie.ops import enhance_sci, smoothness_loss
from fastllie.training import recipes
from fastllie.training.data import Batch
from fastllie.training.sci import SCITask

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = SHARED / "golden" / "sci"
PUBLISHED = SHARED / "weights" / "sci"
needs_shared = pytest.mark.skipif(
    not (GOLDEN.is_dir() and PUBLISHED.is_dir()), reason="../shared/golden and ../shared/weights are not here"
)
FILES = ("easy", "medium", "difficult")


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files if arrays[key].dtype.kind != "U"}


def unit(pixels, dtype=torch.float32):
    """`[H, W, 3]` or `[B, H, W, 3]` of uint8 as a batch, divided in float32 as the golden values were."""
    return (pixels.reshape(-1, *pixels.shape[-3:]).permute(0, 3, 1, 2).float() / 255).to(dtype)


def within(got, expected, rtol=0.0, atol=0.0):
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


def wide_medium():
    """The published medium weights in float64, in training mode."""
    return fastllie.load("sci", PUBLISHED / "medium.safetensors", dtype=torch.float64).train()


# --- the published networks


@needs_shared
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("weights", [*FILES, "mit_demo_2022_03"])
def test_published_weights_give_the_published_images(weights, suffix):
    arrays = golden("sci_infer")
    path = PUBLISHED / f"{weights}.{suffix}"
    network = fastllie.load("sci", path)
    assert network.padding == "zeros"
    assert network.block == ("basic" if weights in FILES else "plain")
    name = weights.removesuffix("_2022_03")
    for image in "abs" if weights in FILES else "s":
        x = unit(arrays[f"{image}.u8"])
        with torch.no_grad():
            illum, out = network.stage(x, x)
            within(illum[0], arrays[f"{image}.{name}.illu"], atol=3e-6)
            within(out[0], arrays[f"{image}.{name}.out"], atol=5e-6)
            within(network(x)[0], arrays[f"{image}.{name}.out"], atol=5e-6)
    if weights not in FILES:
        return
    # the published code rounds down, enhance rounds to nearest
    got = fastllie.enhance(arrays["s.u8"].numpy(), "sci", weights=path).astype(int)
    off = got - arrays[f"s.{weights}.png_u8"].numpy()
    assert off.min() >= 0
    assert off.max() <= 1
    expected = np.floor(255 * arrays[f"s.{weights}.out"].permute(1, 2, 0).numpy() + 0.5)
    assert (got != expected).mean() < 1e-3


@needs_shared
@pytest.mark.parametrize(("dtype", "decibels"), [(torch.bfloat16, 50), (torch.float16, 60)])
def test_half_precision_stays_close(dtype, decibels):
    arrays = golden("sci_infer")
    network = fastllie.load("sci", PUBLISHED / "medium.pt", dtype=dtype)
    with torch.no_grad():
        out = network(unit(arrays["a.u8"], dtype))[0].double()
    assert -10 * (out - arrays["a.medium.out"]).square().mean().log10() >= decibels


@needs_shared
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("case", ["A", "B"])
def test_cascade_matches_the_published(case, mode):
    arrays = golden(f"sci_train_forward_{case}")
    network = fastllie.load("sci", PUBLISHED / "medium.pt").train(mode == "train")
    with torch.no_grad():
        stages = network.stages(unit(arrays["x_u8"]), 3, calibrate_last=True)
    for t in range(3):
        within(stages.illum[t], arrays[f"{mode}.i{t}"], atol=2e-5)
        within(stages.enhanced[t], arrays[f"{mode}.r{t}"], atol=5e-5)
        within(stages.corrections[t].abs(), arrays[f"{mode}.att{t}"], atol=2e-5)
        if t:
            within(stages.inputs[t], arrays[f"{mode}.in{t}"], atol=2e-5)
    if mode == "train":
        buffers = dict(network.named_buffers())
        expected = {key.removeprefix("bn_after."): v for key, v in arrays.items() if "bn_after" in key}
        assert expected.keys() == buffers.keys()
        for key, value in expected.items():
            within(buffers[key], value, rtol=1e-5, atol=1e-8)


@needs_shared
def test_the_last_calibration_moves_nothing_but_its_own_statistics():
    x = unit(golden("sci_train_forward_A")["x_u8"])
    whole, short = (fastllie.load("sci", PUBLISHED / "medium.pt").train() for _ in range(2))
    results = [whole.stages(x, 3, calibrate_last=True), short.stages(x, 3)]
    assert [len(stages.corrections) for stages in results] == [3, 2]
    for a, b in zip(results[0].enhanced, results[1].enhanced, strict=True):
        assert torch.equal(a, b)
    changed = [
        key
        for (key, a), b in zip(whole.state_dict().items(), short.state_dict().values(), strict=True)
        if not torch.equal(a, b)
    ]
    assert changed
    assert all((key.startswith("calibrate.") and "running" in key) or "num_batches" in key for key in changed)


@needs_shared
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("batch", ["b1", "b2"])
def test_losses_and_gradients_match_the_published(batch, mode):
    arrays = golden("sci_loss")
    names = np.load(GOLDEN / "sci_loss.npz")["param_names"]
    pixels = arrays["x_u8"] if batch == "b2" else arrays["x_u8"][:1]
    network = wide_medium().train(mode == "train")
    stages = network.stages(unit(pixels, torch.float64), 3)
    prefix = f"medium/{batch}/{mode}/f64"
    total = 0
    for t, (v, illum) in enumerate(zip(stages.inputs, stages.illum, strict=True)):
        fidelity = (illum - v).square().mean()
        smoothness = smoothness_loss(illum, v, color="memory", sigma=10.0)
        within(fidelity, arrays[f"{prefix}/mse_per_stage"][t], rtol=1e-11)
        within(smoothness, arrays[f"{prefix}/smooth_per_stage"][t], rtol=1e-11)
        total = total + 1.5 * fidelity + smoothness
    within(total, arrays[f"{prefix}/loss"], rtol=1e-11)
    total.backward()
    parameters = dict(network.named_parameters())
    assert sorted(parameters) == sorted(names)
    for name in names:
        expected = arrays[f"{prefix}/grad/{name}"]
        # the biases before a batch norm in training mode: their true gradient is zero
        zero = mode == "train" and str(name).endswith(BEFORE_NORM)
        within(parameters[name].grad, expected, atol=1e-9 if zero else 1e-8 * expected.abs().max().item())
    norm = torch.stack([p.grad.norm() for p in parameters.values()]).norm()
    within(norm, arrays[f"{prefix}/grad_l2_total"], rtol=1e-8)


BEFORE_NORM = ("enhance.conv.0.bias", "calibrate.in_conv.0.bias", "convs.0.bias", "convs.3.bias")


@needs_shared
@pytest.mark.parametrize("batch", ["b1", "b2"])
def test_losses_in_float32(batch):
    """As the task computes them, against the published code in the precision that it runs in."""
    arrays = golden("sci_loss")
    pixels = arrays["x_u8"] if batch == "b2" else arrays["x_u8"][:1]
    task = SCITask(recipes.SCI_OFFICIAL, 1, 1)
    task.start_from(checkpoint.read(PUBLISHED / "medium.pt", "sci").state)
    x = unit(pixels)
    values = {name: value.item() for name, value in task.step([Batch(x, x)]).items()}
    prefix = f"medium/{batch}/train/f32"
    assert values["total"] == pytest.approx(arrays[f"{prefix}/loss"].item(), rel=1e-6)
    assert values["gradient"] == pytest.approx(arrays[f"{prefix}/grad_l2_total"].item(), rel=1e-3)
    assert values["fidelity"] + values["smoothness"] == pytest.approx(values["total"], rel=1e-6)


@needs_shared
@pytest.mark.parametrize(("case", "name"), [("current", "official"), ("legacy", "released")])
def test_ten_steps_match_the_published(case, name):
    arrays = golden("sci_train10")
    keys = [str(key) for key in np.load(GOLDEN / "sci_train10.npz")["keys"]]
    task = SCITask(replace(recipes.RECIPES["sci"][name], calibrate_last=True), 10, steps_per_epoch=2)
    start = load_file(GOLDEN / "sci_train10_init.safetensors")
    task.start_from({key: value for key, value in start.items() if ".blocks." not in key})
    task.network.double()
    images = [unit(arrays[f"img{index}_u8"], torch.float64) for index in (0, 1)]
    for step in range(10):
        x = images[step % 2]
        values = {name: value.item() for name, value in task.step([Batch(x, x)]).items()}
        assert values["total"] == pytest.approx(arrays[f"{case}/f64/loss"][step].item(), rel=1e-8)
        assert values["gradient"] == pytest.approx(
            arrays[f"{case}/f64/grad_norm_before_clip"][step].item(), rel=1e-6
        )
    state = task.network.state_dict()
    assert sorted(state) == sorted(keys)
    for key in keys:
        # a true gradient of zero: Adam makes steps of its rounding noise
        noise = key.endswith((*BEFORE_NORM, "running_mean"))
        within(state[key], arrays[f"{case}/f64/final/{key}"], atol=4e-3 if noise else 1e-7)


@needs_shared
def test_the_published_seed_draws_the_published_start():
    expected = load_file(GOLDEN / "sci_train10_init.safetensors")
    torch.manual_seed(2)
    state = SCITask(recipes.SCI_OFFICIAL, 1, 1).network.state_dict()
    for key, value in state.items():
        assert torch.equal(value, expected[key]), key


@needs_shared
def test_ruas_block_matches_the_published():
    arrays = golden("ruas_iem")
    module = IlluminationModule().double()
    module.load_state_dict({key[2:]: value for key, value in arrays.items() if key.startswith("w.")})
    y = unit(arrays["y_u8"], torch.float64).requires_grad_()
    network = SCI(block=module).double()
    illum, enhanced = network.stage(y, y)
    within(largest_of_four(y), arrays["k0.that"], atol=1e-12)
    within(illum, arrays["k0.t"], atol=1e-12)
    within(enhanced, arrays["k0.u"], atol=1e-12)
    enhanced.backward(arrays["k0.grad_u"])
    within(y.grad, arrays["k0.grad_y"], rtol=1e-10, atol=1e-12)
    for name, parameter in module.named_parameters():
        within(parameter.grad, arrays[f"k0.gradw.{name}"], rtol=1e-10, atol=1e-12)
    # a later block of RUAS sees another image through the same cell
    residual = arrays["u_prev"] - y.detach()
    later = torch.sigmoid(module.cell(largest_of_four(arrays["u_prev"]) - 0.5 * residual)).clamp(1e-3, 1)
    within(later, arrays["k1.t"], atol=1e-12)


# --- the network by itself


def test_folded_batch_norm_is_the_network():
    torch.manual_seed(0)
    network = trained(SCI()).enhance
    x = torch.rand(2, 3, 9, 11)
    weights, biases = network.folded()
    assert weights.shape == (3, 3, 3, 3, 3)
    assert biases.shape == (3, 3)
    first = torch.relu(torch.nn.functional.conv2d(x, weights[0], biases[0], padding=1))
    second = first + torch.relu(torch.nn.functional.conv2d(first, weights[1], biases[1], padding=1))
    raw = torch.nn.functional.conv2d(second, weights[2], biases[2], padding=1)
    within(raw, network.raw(x), atol=1e-5)


def trained(network):
    """A network with statistics and weights as after training, in eval mode."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.01, 2)
            torch.nn.init.normal_(module.weight, 1, 0.3)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


@pytest.mark.parametrize(
    "options",
    [{}, {"padding": "reflect"}, {"blocks": 3, "channels": 5}, {"block": "plain"}, {"block": "ruas"}],
    ids=str,
)
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 3), (17, 12)])
def test_every_shape_is_kept_and_only_brightened(options, size):
    torch.manual_seed(0)
    network = trained(SCI(**options))
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        y = network(x)
    assert y.shape == x.shape
    assert (y >= x - 1e-6).all()
    assert y.max() <= 1


@pytest.mark.parametrize(
    "options", [{}, {"padding": "reflect", "blocks": 2}, {"block": "plain"}, {"block": "ruas"}], ids=str
)
def test_halo_is_what_a_pixel_depends_on(options):
    torch.manual_seed(0)
    network = trained(SCI(**options)).double()
    size = 2 * network.contract.halo + 3
    # several pictures: in one, a unit may be idle
    x = torch.rand(64, 3, size, size, dtype=torch.float64, requires_grad=True)
    centre = network.contract.halo + 1
    network.stage(x, x)[0][..., centre, centre].sum().backward()
    seen = x.grad.abs().sum((0, 1)) > 0
    assert not seen[0].any()
    assert not seen[:, 0].any()
    # the window of the two-by-two maximum reaches to the right and down only
    assert seen[-2].any()
    assert not seen[-1].any()
    assert not seen[:, -1].any()


def test_reflected_borders_leave_flat_pictures_flat():
    torch.manual_seed(0)
    flat = torch.full((1, 3, 12, 15), 0.1)
    with torch.no_grad():
        reflected = trained(SCI(padding="reflect"))(flat)
        torch.manual_seed(0)
        framed = trained(SCI(padding="zeros"))(flat)
    assert (reflected - reflected[..., :1, :1]).abs().max() < 1e-6
    assert (framed - framed[..., :1, :1]).abs().max() > 1e-4


def test_own_block_is_shared_by_the_stages():
    class Grey(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.level = torch.nn.Parameter(torch.tensor(0.4))

        def forward(self, v):
            return torch.sigmoid(self.level).expand_as(v)

    block = Grey()
    network = SCI(block=block, calibrate=True)
    assert (network.block, network.contract.halo) == ("Grey", None)
    y = torch.rand(1, 3, 8, 8)
    stages = network.stages(y, 2)
    sum(r.mean() for r in stages.enhanced).backward()
    assert block.level.grad != 0
    within(stages.enhanced[0], (y / torch.sigmoid(block.level)).clamp(0, 1).detach(), atol=1e-6)
    task = SCITask(recipes.SCI_OFFICIAL, 1, 1, network=network)
    before = block.level.item()
    task.step([Batch(y, y)])
    assert block.level.item() != before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"block": "deep"}, "block must be a module or one of ('basic', 'plain', 'ruas'), got 'deep'"),
        ({"padding": "same"}, "padding must be one of ('zeros', 'reflect'), got 'same'"),
        ({"blocks": 0}, "blocks must be an integer >= 1, got 0"),
        ({"channels": 2.5}, "channels must be an integer >= 1, got 2.5"),
        ({"block": "ruas", "padding": "reflect"}, "the block 'ruas' has its own depth and width"),
    ],
)
def test_options_that_make_no_network(options, told):
    with refused(ValueError, told):
        SCI(**options)


def test_stages_need_a_calibration():
    with refused(ValueError, "several stages need a calibration network"):
        SCI().stages(torch.rand(1, 3, 8, 8), 2)
    with refused(ValueError, "count must be an integer >= 1, got 0"):
        SCI().stages(torch.rand(1, 3, 8, 8), 0)
    assert len(SCI().stages(torch.rand(1, 3, 8, 8), 1).enhanced) == 1


# --- inference in one kernel


@pytest.mark.parametrize("options", [{}, {"padding": "reflect"}, {"block": "plain"}], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (3, 1), (9, 14), (40, 33)])
def test_one_kernel_gives_what_the_layers_give(options, size):
    torch.manual_seed(0)
    network = trained(SCI(**options))
    x = torch.rand(2, 3, *size)
    assert network.contract.one_pass
    layers = network(x)
    assert layers.requires_grad
    with torch.no_grad():
        within(network(x), layers.detach(), atol=1e-5)
        wide = network.double()(x.double())
    within(wide.float(), layers.detach(), atol=1e-5)


def test_gradients_training_and_other_networks_go_through_the_layers(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the kernel has no gradient")

    monkeypatch.setattr("fastllie.models.sci.enhance_sci", refuse)
    x = torch.rand(1, 3, 8, 8)
    network = SCI()
    network(x).mean().backward()
    assert network.enhance.in_conv[0].weight.grad is not None
    with torch.no_grad():
        network(x)
        for other in (SCI(blocks=2), SCI(channels=4), SCI(block="ruas")):
            assert not other.contract.one_pass
            trained(other)(x)
        with pytest.raises(AssertionError, match="the kernel has no gradient"):
            trained(network)(x)
    frozen = trained(SCI()).requires_grad_(False)
    frozen(x.requires_grad_()).mean().backward()
    assert x.grad.abs().sum() > 0


def test_batch_norm_is_folded_once_and_anew_after_every_change():
    torch.manual_seed(0)
    network = trained(SCI())
    x = torch.rand(1, 3, 8, 8)

    def agree():
        layers = network(x).detach()
        with torch.no_grad():
            within(network(x), layers, atol=1e-5)
            assert network.enhance.folded()[0] is network.enhance.folded()[0]

    agree()
    first = network.enhance.folded()[0]
    with torch.no_grad():
        network.enhance.conv[0].weight.mul_(1.5)
    agree()
    assert network.enhance.folded()[0] is not first
    network.train()(x)
    network.eval()
    agree()
    network.load_state_dict(trained(SCI()).state_dict())
    agree()
    network.load_state_dict(trained(SCI()).state_dict(), assign=True)
    agree()
    for parameter in network.parameters():
        parameter.data = parameter.data + 0.1
    agree()


def test_a_network_can_be_copied_and_compiled():
    torch.manual_seed(0)
    network = trained(SCI())
    x = torch.rand(1, 3, 12, 10)
    with torch.no_grad():
        expected = network(x)
        assert torch.equal(copy.deepcopy(network)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(network))(x), expected)
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        within(compiled(x), expected, atol=1e-6)
        within(torch.export.export(network, (x,)).module()(x), expected, atol=1e-6)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_bytes_go_through_as_they_are(tmp_path, monkeypatch, channels):
    path = write_weights(tmp_path / "w.safetensors", "sci")
    frame = np.random.default_rng(0).integers(0, 120, (2, 20, 31, 3), dtype=np.uint8)
    seen = []

    def recorded(x, *rest, **options):
        seen.append(x.dtype)
        return enhance_sci(x, *rest, **options)

    monkeypatch.setattr("fastllie.models.sci.enhance_sci", recorded)
    got = fastllie.enhance(frame, "sci", weights=path, channels=channels)
    assert seen == [torch.uint8]
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    expected = fastllie.enhance(frame / np.float32(255), "sci", weights=path, channels=channels)
    assert seen[1] == torch.float32
    assert same_levels(got, np.floor(expected * 255 + 0.5).astype(np.int64))
    # in every container, and where the bytes cannot do
    planes = torch.from_numpy(frame).permute(0, 3, 1, 2)
    tensor = fastllie.enhance(planes, "sci", weights=path, channels=channels)
    assert torch.equal(tensor, torch.from_numpy(got).permute(0, 3, 1, 2))
    if channels == "rgb":
        picture = fastllie.enhance(Image.fromarray(frame[0]), "sci", weights=path)
        assert np.array_equal(np.asarray(picture), got[0])
        grey = fastllie.enhance(Image.fromarray(frame[0, ..., 0]), "sci", weights=path)
        assert grey.mode == "L"
    half = fastllie.enhance(frame, "sci", weights=path, channels=channels, strength=0.5)
    assert same_levels(half, np.floor(0.5 * frame + 0.5 * expected * 255 + 0.5).astype(np.int64))
    tiles = fastllie.enhance(frame, "sci", weights=path, channels=channels, tile=9)
    assert np.array_equal(tiles, got)
    mixed = fastllie.Enhancer("sci", weights=path, channels=channels).batch([frame[0], frame[1] / 255.0])
    assert np.array_equal(mixed[0], got[0])
    assert mixed[1].dtype == np.float64


def test_a_whole_frame_goes_through_untiled(tmp_path, monkeypatch):
    path = write_weights(tmp_path / "w.safetensors", "sci")
    sizes = []

    def recorded(x, *rest, **options):
        sizes.append(tuple(x.shape[-2:]))
        return enhance_sci(x, *rest, **options)

    monkeypatch.setattr("fastllie.models.sci.enhance_sci", recorded)
    fastllie.enhance(np.zeros((500, 400, 3), np.uint8), "sci", weights=path)
    fastllie.enhance(torch.zeros(1, 3, 500, 400), "sci", weights=path)
    assert sizes == [(500, 400)] * 2


# --- files


def official_state(**options):
    torch.manual_seed(3)
    network = trained(SCI(calibrate=True, **options))
    return network


@pytest.mark.parametrize("blocks", [1, 3])
def test_official_layout_goes_out_and_comes_back(tmp_path, blocks):
    network = official_state(blocks=blocks)
    path = tmp_path / "epoch.pt"
    checkpoint.export_official(network, path)
    written = torch.load(path, weights_only=True)
    assert len(written) == 34 + 7 * blocks + 14 * 3
    for key in ("0.weight", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(written[f"enhance.blocks.{blocks - 1}.{key}"], written[f"enhance.conv.{key}"])
        assert torch.equal(written[f"calibrate.blocks.2.{key}"], written[f"calibrate.convs.{key}"])
    back = fastllie.load("sci", path)
    assert back.blocks == blocks
    for key, value in network.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key


@needs_shared
def test_official_layout_is_that_of_the_published_files(tmp_path):
    checkpoint.export_official(fastllie.load("sci", PUBLISHED / "easy.pt"), tmp_path / "easy.pt")
    expected = load_file(PUBLISHED / "easy.safetensors")
    written = torch.load(tmp_path / "easy.pt", weights_only=True)
    assert written.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(written[key], value), key


def test_export_refuses_what_the_published_code_lacks(tmp_path):
    with refused(ValueError, "the published code has the block 'basic' alone, the network has 'ruas'"):
        checkpoint.export_official(SCI(block="ruas"), tmp_path / "w.pt")
    with refused(TypeError, "network must be an SCI, an EnlightenGAN or a NeRCo, got Linear"):
        checkpoint.export_official(torch.nn.Linear(1, 1), tmp_path / "w.pt")


def test_files_without_calibration_are_enough_to_enhance(tmp_path):
    state = official_state().state_dict()
    torch.save({k: v for k, v in state.items() if k.startswith("enhance.")}, tmp_path / "w.pt")
    network = fastllie.load("sci", tmp_path / "w.pt")
    assert network.calibrate is None
    assert torch.equal(network.enhance.in_conv[0].weight, state["enhance.in_conv.0.weight"])


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "reflect"},
        {"blocks": 2, "channels": 7, "padding": "reflect"},
        {"block": "plain", "channels": 4},
        {"block": "ruas", "calibrate": True},
    ],
    ids=str,
)
def test_our_layout_tells_the_whole_network(tmp_path, options):
    torch.manual_seed(1)
    network = trained(SCI(**options))
    metadata = {"method": "sci", "padding": network.padding, "blocks": str(network.blocks)}
    checkpoint.write(tmp_path / "w.safetensors", network.state_dict(), metadata)
    loaded = fastllie.load("sci", tmp_path / "w.safetensors")
    for name in ("block", "blocks", "channels", "padding", "contract"):
        assert getattr(loaded, name) == getattr(network, name), name
    x = torch.rand(1, 3, 30, 40)
    with torch.no_grad():
        expected = network(x)
        assert torch.equal(loaded(x), expected)
    # tiles know how far a deeper network sees
    tiled = fastllie.enhance(x, "sci", weights=tmp_path / "w.safetensors", tile=8)
    within(tiled, expected, atol=1e-5)


def test_padding_may_be_chosen_against_the_file(tmp_path):
    torch.save(official_state().state_dict(), tmp_path / "w.pt")
    assert fastllie.load("sci", tmp_path / "w.pt").padding == "zeros"
    assert fastllie.load("sci", tmp_path / "w.pt", padding="reflect").padding == "reflect"
    with refused(ValueError, "sci with weights", "padding must be one of ('zeros', 'reflect'), got 'same'"):
        fastllie.load("sci", tmp_path / "w.pt", padding="same")


def test_files_that_do_not_fit_are_told_apart(tmp_path):
    state = official_state().state_dict()
    del state["enhance.conv.1.running_var"]
    state["enhance.blocks.0.0.weight"] = state["enhance.conv.0.weight"] + 1
    state["calibrate.out_conv.0.weight"] = torch.zeros(3, 8, 3, 3)
    torch.save(state, tmp_path / "w.pt")
    told = [
        f"{tmp_path / 'w.pt'} does not fit 'sci':",
        "  missing: enhance.conv.1.running_var (3,)",
        "  unexpected: enhance.blocks.0.0.weight (3, 3, 3, 3)",
        "  wrong shape: calibrate.out_conv.0.weight (3, 8, 3, 3), wanted (3, 16, 3, 3)",
    ]
    with refused(ValueError, "\n".join(told)):
        fastllie.load("sci", tmp_path / "w.pt")
    torch.save(official_state().state_dict(), tmp_path / "w.pt")
    with refused(ValueError, "holds weights of 'sci', wanted weights of 'zerodce'"):
        fastllie.load("zerodce", tmp_path / "w.pt")
    ours = write_weights(tmp_path / "ours.safetensors", "sci", padding="reflect")
    with refused(ValueError, "holds weights of 'sci', wanted weights of 'zerodce++'"):
        fastllie.load("zerodce++", ours)
    curves = write_weights(tmp_path / "curves.safetensors", "zerodce++", padding="replicate")
    with refused(ValueError, "holds weights of 'zerodce++', wanted weights of 'sci'"):
        fastllie.load("sci", curves)
