"""NeRCo: its networks against the published where at hand, and against plain modules; strips; sizes."""

import importlib.util
import json
import math
import zlib
from pathlib import Path

import numpy as np
import published_nerco
import pytest
import torch
from helpers import refused, rounded, same_levels, unit
from PIL import Image

import fastllie
from fastllie import checkpoint
from fastllie.models import NeRCo
from fastllie.models.nerco import (
    Discriminator,
    Generator,
    MaskExtractor,
    Representation,
    edge_map,
    edges,
    layers,
    networks,
    strips,
)
from fastllie.models.nerco.model import extended, official_size, recast, resized
from fastllie.ops import working_set

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "nerco"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared/golden/nerco is not here")
NETWORKS = {
    "Pre": (Representation, {}),
    "H": (MaskExtractor, {}),
    "G_A": (Generator, {"inputs": 6}),
    "G_B": (Generator, {"inputs": 3}),
    **{name: (Discriminator, {}) for name in ("D_A", "D_B", "D_A_edge", "D_B_edge")},
}
WIDTH, BLOCKS = 4, 2
_LAST = torch.channels_last


@pytest.fixture(scope="module")
def golden_networks():
    """All networks at their published width, with the parameters of the golden data."""
    spec = importlib.util.spec_from_file_location("nerco_det_init", GOLDEN / "nerco_det_init.py")
    drawn = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawn)
    colour = [
        torch.from_numpy(drawn.value("GradLayer", f"gray2RGB.{part}", (3,))) for part in ("weight", "bias")
    ]
    found = {name: drawn.fill(make(**options), name) for name, (make, options) in NETWORKS.items()}
    return found | {"colour": tuple(colour)}


def golden(file):
    with np.load(GOLDEN / file) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def matches(file, **got):
    """Within the tolerances that come with the golden data."""
    cases = json.loads((GOLDEN / "manifest.json").read_text())["cases"]
    told = next(case["outputs"] for case in cases if case["file"] == file)
    arrays = golden(file)
    for name, value in got.items():
        tolerance = told[f"out_{name}"]["tolerance"]
        expected = arrays[f"out_{name}"].reshape(value.shape)
        torch.testing.assert_close(value, expected, atol=tolerance["atol"], rtol=tolerance["rtol"])


def signed(pixels):
    """`[H, W, 3]` of uint8 as a batch in [-1, 1]."""
    return (pixels.float() / 255 * 2 - 1).permute(2, 0, 1)[None]


def image(height, width, *, batch=1, channels=3, dtype=torch.float64, seed=0):
    """Smooth noise in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, channels, 5, 6, dtype=torch.float64, generator=generator) * 2 - 1
    fine = torch.rand(batch, channels, height, width, dtype=torch.float64, generator=generator) - 0.5
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return (0.8 * smooth + 0.2 * fine).to(dtype)


def strong(network, seed=0):
    """Parameters so large that every layer, bias and column counts; float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.double().parameters():
            fan = max(1, math.prod(parameter.shape[1:]))
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator) / fan**0.5)
    return network


def pair(name, seed=0):
    """One of our networks and the plain modules with the same parameters, small, in float64."""
    if name == "Pre":
        ours = Representation(width=WIDTH, blocks=BLOCKS)
        plain = published_nerco.Pre(WIDTH, BLOCKS, 4 * WIDTH)
    elif name == "H":
        ours, plain = MaskExtractor(width=WIDTH), published_nerco.H(WIDTH)
    elif name == "D":
        ours, plain = Discriminator(width=WIDTH), published_nerco.discriminator(WIDTH)
    else:
        inputs = 6 if name == "G_A" else 3
        ours = Generator(inputs, width=WIDTH, blocks=BLOCKS)
        plain = published_nerco.generator(inputs, WIDTH, BLOCKS)
    strong(ours, seed)
    plain.double().load_state_dict(ours.state_dict())
    return ours, plain


def small(seed=0, **options):
    return strong(NeRCo(width=WIDTH, blocks=BLOCKS, **options), seed)


def tuple_of(value):
    return value if isinstance(value, tuple) else (value,)


def within(got, expected, atol=1e-9):
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


# --- against the published


@needs_golden
@torch.no_grad()
@pytest.mark.parametrize("case", "ab")
def test_networks_match_the_published(case, golden_networks):
    nets = golden_networks
    x = signed(golden(f"nerco_mask_{case}.npz")["in_u8"])
    features = golden(f"nerco_nrn_{case}.npz")["in_feat"]
    pre = nets["Pre"](x)
    matches(f"nerco_nrn_{case}.npz", pre=pre, mlp_out=nets["Pre"].mlp(features))
    f = nets["H"].features(x)
    residual, mask = nets["H"](x)
    matches(f"nerco_mask_{case}.npz", h=residual, mask=mask, channel_attention=nets["H"].attention(f))
    both = torch.cat([x, x.flip(3)], 1)
    for name, given in (("H", both), ("L", x)):
        network = nets["G_A" if name == "H" else "G_B"]
        matches(f"nerco_generator_{name}_{case}.npz", out=network(given), pre_tanh=network.raw(given))
    edge = edge_map(x, colour=nets["colour"])
    matches(
        f"nerco_discriminators_{case}.npz",
        D_A=nets["D_A"](x),
        D_B=nets["D_B"](x),
        D_A_edge_on_image=nets["D_A_edge"](x),
        D_A_edge_on_edges=nets["D_A_edge"](edge),
        D_B_edge_on_edges=nets["D_B_edge"](edge),
    )


@needs_golden
@torch.no_grad()
@pytest.mark.parametrize("case", "ab")
def test_inference_matches_the_published(case, golden_networks, monkeypatch):
    file = f"nerco_full_infer_{case}.npz"
    monkeypatch.setattr(working_set, "CPU_BYTES", 0)
    model = NeRCo(size_mode="official")
    model.Pre, model.H, model.G_A = (golden_networks[name] for name in ("Pre", "H", "G_A"))
    x = (signed(golden(file)["in_u8"]) + 1) / 2
    given = resized(x, *official_size(*x.shape[-2:])) * 2 - 1
    matches(file, net_input=given)
    given = given.contiguous(memory_format=_LAST)
    pre, mask = strips.represent(model.Pre, given), strips.extract_mask(model.H, given)
    y = strips.generate(model.G_A, torch.cat([given, pre], 1) * mask)
    matches(file, pre=pre, mask=mask, fake_B=y)
    levels = ((y + 1) / 2 * 255).to(torch.uint8).permute(0, 2, 3, 1)
    off = levels.int() - golden(file)["out_fake_B_u8"].int()
    assert off.abs().max() <= 1
    out = model(x)
    assert out.shape == x.shape
    if case == "a":
        # these weights enlarge the rounding of the input a hundredfold
        within(out, (y + 1) / 2, atol=1e-3)


@needs_golden
@pytest.mark.parametrize("case", "ab")
def test_edges_match_the_published(case, golden_networks):
    file = f"nerco_gradlayer_{case}.npz"
    x = signed(golden(file)["in_u8"]).requires_grad_()
    edge = edge_map(x, colour=golden_networks["colour"])
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(b"cotangent.gradlayer")))
    cotangent = torch.from_numpy(rng.standard_normal(tuple(edge.shape)).astype(np.float32))
    (grad,) = torch.autograd.grad((edge * cotangent).sum(), x)
    matches(file, edge_x4=edge.detach(), grad_x=grad)
    x = x.detach()
    matches(file, gray=edges.gray(x), magnitude=edges.magnitude(x))
    for kind in ("laplacian4", "laplacian8"):
        matches(file, **{kind: edges.derivatives(x, kind)})


# --- against plain modules in the published structure


@pytest.mark.parametrize("name", ["Pre", "H", "G_A", "G_B", "D"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, _LAST])
def test_forward_and_gradients_are_those_of_the_plain_modules(name, layout):
    ours, plain = pair(name)
    assert list(ours.state_dict()) == list(plain.state_dict())
    # the plain representation takes several images as well, unlike the published
    x = image(44, 39 if name != "Pre" else 40, batch=2, channels=6 if name == "G_A" else 3)
    x = x.contiguous(memory_format=layout)
    results = []
    for network in (ours, plain):
        given = x.clone().requires_grad_()
        outputs = tuple_of(network.forward(given))
        loss = sum((y * image(*y.shape[-2:], batch=2, channels=y.shape[1], seed=3)).sum() for y in outputs)
        grads = torch.autograd.grad(loss, [given, *network.parameters()])
        results.append((outputs, grads))
    for got, expected in zip(results[0][0], results[1][0], strict=True):
        within(got, expected)
    for got, expected in zip(results[0][1], results[1][1], strict=True):
        within(got, expected, atol=1e-8 * max(1, float(expected.abs().max())))
    assert all(grad.isfinite().all() for grad in results[0][1])


def test_gradients_reach_every_parameter_that_counts():
    x = image(24, 20)
    model = small(coordinates="absolute")
    (residual, mask), pre = model.H(x), model.Pre(x)
    y = model.G_A(torch.cat([x, pre], 1) * mask)
    weights = image(24, 20, channels=6, seed=5)
    (torch.cat([y, residual], 1) * weights).sum().backward()
    for name, parameter in model.named_parameters():
        # a norm takes the bias of the convolution before it away: rounding noise remains
        last = f"model.{model.G_A.last}" in name or "mlp" in name or "output" in name
        idle = name.endswith("bias") and not last
        # and the two cell sizes are constants
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad.abs().max() < 1e-9) == idle, name


def test_published_coordinates_have_no_gradient_and_ours_do():
    for coordinates in networks.COORDINATES:
        model = strong(Representation(width=WIDTH, blocks=1, coordinates=coordinates))
        (model(image(12, 16)) * image(12, 16, seed=2)).sum().backward()
        coded = model.mlp.imnet.layers["0"].weight.grad[:, 9 * WIDTH : 9 * WIDTH + networks.CODED]
        assert coded.shape[1] == 34
        used = coded.abs().amax(0) > 0
        assert used.all() if coordinates == "absolute" else not used.any()


def test_absolute_coordinates_are_those_of_the_paper():
    mlp = strong(networks.PixelMLP(WIDTH, 8, "absolute"))
    f = image(5, 7, channels=WIDTH)
    around = torch.nn.functional.unfold(f, 3, padding=1)[0].T
    coded = []
    for row in range(5):
        for column in range(7):
            at = [-1 + (2 * row + 1) / 5, -1 + (2 * column + 1) / 7]
            waves = [wave(2**k * math.pi * c) for c in at for wave in (math.sin, math.cos) for k in range(8)]
            coded.append([*at, *waves, 2.0, 2.0])
    y = torch.cat([around, torch.tensor(coded, dtype=torch.float64)], 1)
    for place, layer in enumerate(mlp.imnet.layers.values()):
        y = layer(torch.relu(y) if place else y)
    within(mlp(f), y.T.reshape(1, 3, 5, 7))


@pytest.mark.parametrize("name", ["G_B", "H", "Pre"])
def test_gradcheck(name):
    make = {"G_B": Generator, "H": MaskExtractor, "Pre": Representation}[name]
    options = {"coordinates": "absolute"} if name == "Pre" else {}
    network = strong(make(width=2, blocks=1, **options))
    x = image(8, 8).requires_grad_()
    parameters = list(network.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: network(x), (x, *parameters), fast_mode=True)


# --- strips, chunks, layouts


@torch.no_grad()
@pytest.mark.parametrize("strip", [0, 12 << 20])
@pytest.mark.parametrize("size", [(8, 8), (12, 40), (44, 16), (100, 36)])
@pytest.mark.parametrize("coordinates", networks.COORDINATES)
def test_strips_are_the_whole(size, strip, coordinates, monkeypatch):
    monkeypatch.setattr(working_set, "CPU_BYTES", strip)
    model, x = small(coordinates=coordinates), image(*size).contiguous(memory_format=_LAST)
    pre, mask = model.Pre(x), model.H.mask(x)
    masked = (torch.cat([x, pre], 1) * mask).contiguous(memory_format=_LAST)
    whole = model.G_A(masked)
    within(strips.represent(model.Pre, x), pre)
    within(strips.extract_mask(model.H, x), mask)
    within(strips.generate(model.G_A, masked), whole)
    within(model.enhance_whole(x), whole)
    assert whole.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("least", [4, 5, 7])
def test_strips_of_any_height_are_the_whole(least, monkeypatch):
    monkeypatch.setattr(working_set, "CPU_BYTES", 0)
    monkeypatch.setattr(strips, "LEAST_ROWS", least)
    model, x = small(), image(44, 12)
    whole = model.G_A(torch.cat([x, model.Pre(x)], 1) * model.H.mask(x))
    within(model.enhance_whole(x), whole)


@pytest.mark.parametrize("size", [(16, 12), (3, 7), (41, 30)])
def test_the_logits_of_the_image_may_be_changed(size, monkeypatch):
    monkeypatch.setattr(working_set, "CPU_BYTES", 0)
    model = small(in_logits=True)
    x = (image(*size, batch=2) + 1) / 2
    x[0, :, 0, 0], x[1, :, 0, 0] = 0, 1
    kept = x.clamp(0.5 / 255, 1 - 0.5 / 255)
    whole = 2 * extended(x) - 1
    raw = model.G_A.raw(torch.cat([whole, model.Pre(whole)], 1) * model.H.mask(whole))
    expected = torch.sigmoid(2 * raw[..., : size[0], : size[1]] + torch.logit(kept))
    within(model(x), expected)
    with torch.no_grad():
        within(model(x), expected)
        last = model.G_A.model[model.G_A.last]
        last.weight.zero_()
        last.bias.fill_(0.5 * math.log(4))
        # four times the odds, and what is nearly black nearly four times as bright
        y = model(x)
        within(y / (1 - y), 4 * kept / (1 - kept))
        last.bias.zero_()
        within(model(x), kept)
        dark = torch.full((1, 3, 16, 16), 0.011, dtype=torch.bfloat16)
        # not the level of 2 x - 1 in bfloat16, which is 0.0117
        within(model.to(torch.bfloat16)(dark).float().mean(), dark[0, 0, 0, 0].float(), 4e-4)


@pytest.mark.parametrize("size", [(16, 12), (3, 7), (41, 30)])
def test_the_cast_of_the_image_may_be_kept(size, monkeypatch):
    monkeypatch.setattr(working_set, "CPU_BYTES", 0)
    model, plain = small(keep_cast=True), small()
    x = 0.2 + 0.1 * image(*size, batch=2) * torch.tensor([1.0, 0.7, 0.4]).view(3, 1, 1)
    given = extended(x)
    expected = recast(plain(given), given)[..., : size[0], : size[1]]
    assert (expected - plain(x)).abs().max() > 1e-3
    within(model(x), expected)
    with torch.no_grad():
        within(model(x), expected)
        assert model.to(torch.bfloat16)(x.to(torch.bfloat16)).dtype == torch.bfloat16
        black = model.float()(torch.zeros(1, 3, 8, 8))
        assert bool(black.isfinite().all())


def luma(picture):
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=picture.dtype).view(3, 1, 1)
    return (picture * weights).sum(-3, keepdim=True)


def test_a_cast_is_that_of_the_light():
    # as bright as the meter's level: it is shown as it is
    light = torch.full((1, 3, 64, 96), 0.6, dtype=torch.float64)
    light[:, 0, :, :48] += 0.06
    light[:, 2, :, 48:] += 0.09
    drawn = 0.6 + 0.02 * torch.randn(light.shape, generator=torch.Generator().manual_seed(0)).double()
    y = recast(drawn, light)
    # each side has its own; details and lumas are those that were drawn
    for columns in (slice(0, 40), slice(56, 96)):
        means = y[..., columns].mean((2, 3)), light[..., columns].mean((2, 3))
        chroma = [mean - luma(mean[..., None, None])[..., 0, 0] for mean in means]
        torch.testing.assert_close(*chroma, atol=2e-3, rtol=0)
    torch.testing.assert_close(luma(y), luma(drawn), atol=2e-3, rtol=0)
    # a darker drawing has less of it, a brighter one no more
    for factor, share in ((0.5, 0.5), (1.4, 1.0)):
        y = recast(torch.full_like(light, 0.6 * factor), light)
        wanted = share * (light - luma(light))
        torch.testing.assert_close((y - luma(y))[..., :40], wanted[..., :40], atol=4e-3, rtol=0)


def test_a_cast_neither_clips_nor_colours_the_dark():
    light = torch.full((1, 3, 32, 32), 0.5, dtype=torch.float64)
    light[:, 0] = 0.9
    y = recast(torch.full_like(light, 0.95), light)
    assert y.max() < 0.99
    torch.testing.assert_close(luma(y), torch.full_like(luma(y), 0.95), atol=1e-9, rtol=0)
    assert bool((y[:, 0] > y[:, 1]).all())
    # what is white stays so
    assert bool((recast(torch.ones_like(light), light) > 1 - 1e-6).all())
    # a black ground beside a lamp: its colour is noise
    night = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    night[:, 0] = 0.002
    night[..., :16, :16] = 1
    y = recast(torch.full_like(night, 0.1), night)
    assert (y - luma(y)).abs()[..., 32:, 32:].max() < 0.01


def test_a_cast_is_not_kept_twice():
    with refused(ValueError, "keep_cast is for what is drawn anew: in_logits changes what is there"):
        NeRCo(width=2, blocks=1, in_logits=True, keep_cast=True)


@torch.no_grad()
def test_an_image_without_any_contrast_has_a_finite_result():
    model = small().float()
    y = model(torch.full((1, 3, 16, 16), 0.25))
    assert y.isfinite().all()


@torch.no_grad()
def test_statistics_of_strips_are_those_of_the_whole():
    x = image(40, 9, channels=5).add(100).contiguous(memory_format=_LAST)
    norm = strips.Norm()
    for top, bottom in strips.spans(40, 7):
        norm.add(x[..., top:bottom, :])
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    within(norm.mean, mean)
    within(norm.squares / norm.count, variance)
    within(norm.into(x, torch.empty_like(x), relu=False), layers.instance_norm(x))


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 5, 100])
def test_chunks_of_the_mlp_change_nothing(rows, monkeypatch):
    mlp, f = pair("Pre")[0].mlp, image(23, 8, channels=WIDTH, batch=2)
    expected = mlp(f)
    monkeypatch.setattr(networks, "ROWS", rows)
    within(mlp(f), expected)
    within(mlp(f.contiguous(memory_format=_LAST)), expected)


@torch.no_grad()
def test_batches_and_layouts():
    model, x = small(), image(21, 30, batch=3) / 2 + 0.5
    alone = torch.cat([model(one) for one in x.split(1)])
    within(model(x), alone)
    within(model(x.contiguous(memory_format=_LAST)), alone)
    spread = torch.zeros(3, 3, 42, 60, dtype=x.dtype)
    spread[..., ::2, ::2] = x
    within(model(spread[..., ::2, ::2]), alone)
    within(model(x.flip(3).flip(3)), alone)
    assert model(x[:0]).shape == (0, 3, 21, 30)


def test_with_gradients_the_result_is_the_same():
    model, x = small(), image(21, 30, batch=2) / 2 + 0.5
    with torch.no_grad():
        expected = model(x)
    y = model(x)
    assert y.requires_grad
    within(y.detach(), expected)
    y = model.requires_grad_(False)(x)
    assert not y.requires_grad
    within(y, expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "decibels"), [(torch.float32, 90), (torch.bfloat16, 25), (torch.float16, 40)]
)
def test_dtypes(dtype, decibels):
    model, x = NeRCo(width=8, blocks=2), image(40, 44) / 2 + 0.5
    expected = model.double()(x)
    y = model.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert expected.std() > 0.02
    assert -10 * (y.double() - expected).square().mean().log10() > decibels


# --- sizes


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (2, 5), (3, 4), (5, 9), (7, 8), (13, 18)])
def test_any_size_comes_back_as_it_came(size):
    model, x = small(), image(*size) / 2 + 0.5
    y = model(x)
    assert y.shape == x.shape
    assert y.min() >= 0
    assert y.max() <= 1
    whole = extended(x)
    assert all(side % 4 == 0 and side >= 8 for side in whole.shape[-2:])
    within(whole[..., : size[0], : size[1]], x)
    within(y, (model.enhance_whole(2 * whole - 1)[..., : size[0], : size[1]] + 1) / 2)


def test_images_are_extended_by_what_they_have():
    row = torch.arange(6.0).view(1, 1, 1, 6)
    assert extended(row)[0, 0].tolist() == [[0, 1, 2, 3, 4, 5, 4, 3]] * 8
    assert extended(row[..., :4])[0, 0, 0].tolist() == [0, 1, 2, 3, 3, 3, 3, 3]
    assert extended(row[..., :5])[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]


@pytest.mark.parametrize("size", [(75, 101), (31, 30), (8, 9)])
def test_official_sizes_are_pillows(size):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    sides = official_size(*size)
    expected = np.asarray(Image.fromarray(pixels).resize(sides[::-1], Image.Resampling.BICUBIC))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    got = (resized(x, *sides) * 255).round()[0].permute(1, 2, 0).numpy()
    off = np.abs(got - expected)
    assert off.max() <= 1
    # Pillow's fixed point falls to the other side of a half now and then
    assert (off > 0).mean() < 1e-3
    with torch.no_grad():
        assert small(size_mode="official").float()(x).shape == x.shape


def test_official_sizes_round_halves_to_even():
    assert official_size(75, 101) == (76, 100)
    assert official_size(10, 14) == (8, 16)
    told = "size_mode 'official' takes sides that round to 8 at least, got 5 x 64"
    with refused(ValueError, told):
        official_size(5, 64)


# --- edges


def test_sobel_and_central_see_a_ramp():
    ramp = torch.linspace(-1, 1, 9, dtype=torch.float64).expand(1, 3, 7, 9)
    slope = 2 / 8 * sum(edges.LUMA)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    expected = {"central": math.hypot(2 * slope, 1e-3), "sobel": math.hypot(8 * slope, 1e-3)}
    for kind in edges.EDGES:
        strength = edge_map(ramp, kind)[inside]
        within(strength, torch.full_like(strength, 4 * expected.get(kind, 1e-3)))


def test_random_colours_are_drawn_in_their_range():
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([torch.stack(edges.random_colour(torch.zeros(1), generator)) for _ in range(200)])
    assert draws.shape == (200, 2, 3)
    assert -1 <= draws.min() < -0.9
    assert 0.9 < draws.max() <= 1


# --- parameters and errors


def test_initial_weights_are_the_published():
    for make, options in (NETWORKS["G_B"], NETWORKS["H"], NETWORKS["D_A"]):
        network = make(**options)
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any()
            elif parameter.numel() > 10_000:
                assert 0.019 < parameter.std() < 0.021


def test_sizes_of_the_published_networks():
    counts = {
        name: sum(p.numel() for p in make(**options).parameters())
        for name, (make, options) in NETWORKS.items()
    }
    assert counts["Pre"] == 11_658_051
    assert counts["H"] == 249_765
    assert counts["G_A"] == 11_387_587
    assert counts["G_B"] == 11_378_179
    assert {counts[name] for name in counts if name.startswith("D_")} == {2_764_737}


@pytest.mark.parametrize(
    ("make", "options", "told"),
    [
        (NeRCo, {"width": 0}, "width must be an integer >= 1, got 0"),
        (NeRCo, {"blocks": True}, "blocks must be an integer >= 1, got True"),
        (NeRCo, {"hidden": 2.5}, "hidden must be an integer >= 1, got 2.5"),
        (
            NeRCo,
            {"coordinates": "relative"},
            "coordinates must be one of ('published', 'absolute'), got 'relative'",
        ),
        (NeRCo, {"size_mode": "crop"}, "size_mode must be one of ('reflect', 'official'), got 'crop'"),
        (Discriminator, {"layers": -1}, "layers must be an integer >= 1, got -1"),
        (Generator, {"inputs": "6"}, "inputs must be an integer >= 1, got '6'"),
    ],
)
def test_bad_arguments(make, options, told):
    with refused(ValueError, told):
        make(**options)


def test_too_small_images():
    with refused(ValueError, "sides of 5 pixels at least, got (1, 3, 4, 9)"):
        Generator(width=2, blocks=1)(torch.zeros(1, 3, 4, 9))
    with refused(ValueError, "sides of 4 pixels at least, got (1, 3, 9, 3)"):
        MaskExtractor(width=2)(torch.zeros(1, 3, 9, 3))
    with refused(ValueError, "edge must be one of", "'canny'"):
        edge_map(torch.zeros(1, 3, 4, 4), "canny")


# --- the method and its files


def write_published(folder, model, epoch="latest", prefix="", statistics=False):
    """The three files, as the published training writes them or once did."""
    folder.mkdir(exist_ok=True)
    for part in ("Pre", "H", "G_A"):
        state = {prefix + key: tensor for key, tensor in getattr(model, part).state_dict().items()}
        if statistics:
            state |= {f"{prefix}model.2.running_mean": torch.zeros(4)}
            state |= {f"{prefix}model.2.num_batches_tracked": torch.tensor(3)}
        torch.save(state, folder / f"{epoch}_net_{part}.pth")
    return folder


def equal(model, other):
    """Whether two networks have the same parameters, and the same names for them."""
    ours, theirs = model.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key].float()) for key in ours)


@pytest.fixture
def shape():
    """A model whose sizes all differ from the defaults."""
    return NeRCo(width=8, blocks=2, pre_blocks=1, mask_blocks=2, hidden=12)


@torch.no_grad()
def test_load_and_enhance(tmp_path, shape):
    path = tmp_path / "small.safetensors"
    checkpoint.write(path, shape.half().state_dict(), {"method": "nerco"})
    model = fastllie.load("nerco", path)
    assert equal(model, shape)
    assert (model.size_mode, model.coordinates, model.training) == ("reflect", "published", False)
    pixels = np.random.default_rng(0).integers(0, 90, (33, 18, 3), dtype=np.uint8)
    y = model(unit(pixels))
    expected = rounded(y)
    assert same_levels(fastllie.enhance(pixels, "nerco", weights=path), expected)
    assert not same_levels(fastllie.enhance(pixels, "nerco", weights=path, size_mode="official"), expected)
    enhancer = fastllie.Enhancer("nerco", weights=path)
    for got in (*enhancer.batch([pixels, pixels]), enhancer.preprocess(pixels)):
        assert same_levels(got, expected)
    halfway = fastllie.enhance(pixels, "nerco", weights=path, strength=0.5)
    assert same_levels(halfway, rounded((unit(pixels) + y) / 2))
    with refused(ValueError, "tile must be 'auto' or None, got 64"):
        fastllie.enhance(pixels, "nerco", weights=path, tile=64)
    with refused(ValueError, "nerco cannot be exported"):
        fastllie.export("nerco", tmp_path / "small.onnx", weights=path)


def test_files_tell_the_coordinates(tmp_path):
    path, model = tmp_path / "ours.safetensors", NeRCo(width=2, blocks=1, coordinates="absolute")
    checkpoint.write(path, model.state_dict(), {"method": "nerco", "coordinates": "absolute"})
    assert fastllie.load("nerco", path).coordinates == "absolute"
    with refused(ValueError, "the published code has no coordinates 'absolute'"):
        checkpoint.export_official(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("switch", "why"),
    [("in_logits", "the published code adds no logits"), ("keep_cast", "the published code keeps no cast")],
)
def test_files_tell_what_the_published_code_has_not(switch, why, tmp_path):
    path, model = tmp_path / "ours.safetensors", NeRCo(width=2, blocks=1, **{switch: True})
    checkpoint.write(path, model.state_dict(), {"method": "nerco", switch: "True"})
    assert getattr(fastllie.load("nerco", path), switch)
    with refused(ValueError, why):
        checkpoint.export_official(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    checkpoint.write(path, model.state_dict(), {"method": "nerco", switch: "yes"})
    with refused(ValueError, f"{switch} in the file must be 'True' or 'False', got 'yes'"):
        fastllie.load("nerco", path)


def test_published_files_are_read_and_written(tmp_path, shape):
    checkpoint.export_official(shape, tmp_path / "saves" / "ours")
    names = sorted(path.name for path in (tmp_path / "saves" / "ours").iterdir())
    assert names == ["latest_net_G_A.pth", "latest_net_H.pth", "latest_net_Pre.pth"]
    written = torch.load(tmp_path / "saves" / "ours" / "latest_net_H.pth", weights_only=True)
    assert list(written) == list(shape.H.state_dict())
    for path in (tmp_path / "saves" / "ours", tmp_path / "saves" / "ours" / "latest_net_Pre.pth"):
        assert equal(fastllie.load("nerco", path), shape)
    old = write_published(tmp_path / "old", shape, prefix="module.", statistics=True)
    assert equal(fastllie.load("nerco", old), shape)


def test_published_files_of_several_epochs(tmp_path, shape):
    other = NeRCo(width=2, blocks=1)
    folder = write_published(tmp_path / "saves", shape, "100")
    assert equal(fastllie.load("nerco", folder), shape)
    write_published(folder, other, "200")
    with refused(ValueError, "several weights of nerco", "100, 200; give the path", "'100_net_G_A.pth'"):
        fastllie.load("nerco", folder)
    assert equal(fastllie.load("nerco", folder / "200_net_G_A.pth"), other)
    write_published(folder, shape, "latest")
    assert equal(fastllie.load("nerco", folder), shape)


def test_one_file_with_all_networks(tmp_path, shape):
    state = {f"net{key}": tensor for key, tensor in shape.state_dict().items()}
    state |= {f"netG_B.{key}": tensor for key, tensor in Generator(width=2, blocks=1).state_dict().items()}
    state |= {f"netD_A_edge.{key}": tensor for key, tensor in Discriminator(width=2).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "all.pth")
    assert equal(fastllie.load("nerco", tmp_path / "all.pth"), shape)


def test_what_is_wrong_with_files(tmp_path, shape):
    with refused(FileNotFoundError, "no weights of nerco in", "wanted latest_net_Pre.pth, latest_net_H.pth"):
        fastllie.load("nerco", tmp_path)
    folder = write_published(tmp_path / "saves", shape)
    (folder / "latest_net_H.pth").unlink()
    with refused(FileNotFoundError, "three files", "latest_net_H.pth"):
        fastllie.load("nerco", folder)
    state = shape.state_dict()
    state["extra.weight"] = torch.zeros(2)
    del state["H.conv1.weight"]
    checkpoint.write(tmp_path / "bad.safetensors", state, {})
    with refused(
        ValueError, "does not fit 'nerco'", "missing: H.conv1.weight (1, 2, 7, 7)", "extra.weight (2,)"
    ):
        fastllie.load("nerco", tmp_path / "bad.safetensors")
    checkpoint.write(tmp_path / "good.safetensors", shape.state_dict(), {})
    with refused(ValueError, "holds weights of 'nerco', wanted weights of 'sci'"):
        fastllie.load("sci", tmp_path / "good.safetensors")
    with refused(ValueError, "is a directory; wanted a file"):
        fastllie.load("sci", folder)
