"""Training EnlightenGAN: the published losses and steps, its sources, runs from photographs to weights."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import picture, refused
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import fastllie
from fastllie import cli
from fastllie.models.enlightengan import attention
from fastllie.training import losses, recipes
from fastllie.training.data import Batch, collect, open_source
from fastllie.training.data.source import Unpaired, UnpairedExposures
from fastllie.training.enlightengan import EnlightenGANTask
from fastllie.training.losses.adversarial import feature_distance, least_squares, relativistic
from fastllie.training.losses.vgg import VGG16
from fastllie.training.recipes import ENLIGHTENGAN_PUBLISHED, EnlightenGANRecipe, Synthesis
from fastllie.training.trainer import Hooks, Pace, fit

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "enlightengan"
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="../shared/golden/enlightengan is not beside the checkout"
)
TINY = EnlightenGANRecipe(
    width=2,
    discriminator_width=2,
    size=32,
    patch=16,
    patches=2,
    batch=2,
    steps=4,
    vgg="random",
    precision="float32",
)
SMALL = {"width": 2, "discriminator_width": 2, "size": 32, "patch": 16, "batch": 2, "vgg": "random"}


@pytest.fixture(autouse=True)
def one_thread():
    """Such small pictures are not worth a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def arrays():
    with np.load(GOLDEN / "eg_losses.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def allowed():
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    return manifest["files"]["eg_losses.npz"]["tolerances"]


@pytest.fixture(scope="module")
def published():
    """The task with the golden data's parameters, and its VGG-16."""
    spec = importlib.util.spec_from_file_location("det_init", GOLDEN / "det_init.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def fill(network, prefix):
        network.load_state_dict(
            {
                key: torch.from_numpy(np.asarray(module.tensor(prefix, key, value.shape)))
                for key, value in network.state_dict().items()
            }
        )
        return network

    vgg = fill(VGG16(caffe=True), "vgg")

    def task():
        recipe = replace(ENLIGHTENGAN_PUBLISHED, precision="float32", batch=2, steps=100, epochs=None)
        made = EnlightenGANTask(recipe, 100, 100, vgg=vgg)
        for network, prefix in zip(made.networks(), ("G", "D_A", "D_P"), strict=True):
            fill(network, prefix)
        return made

    return task


def images(levels):
    levels = levels if levels.ndim == 4 else levels[None]
    return torch.from_numpy(levels.copy()).permute(0, 3, 1, 2).float() / 255


def agrees(got, name, arrays, allowed):
    got = np.asarray(got.detach() if isinstance(got, torch.Tensor) else got, np.float64)
    wanted = arrays[name].astype(np.float64)
    limit = allowed[name]
    assert np.abs(got.reshape(wanted.shape) - wanted).max() <= limit["atol"], name
    if "cosine_min" in limit:
        cosine = (got.ravel() @ wanted.ravel()) / np.linalg.norm(got) / np.linalg.norm(wanted)
        assert cosine >= limit["cosine_min"], name


# --- the published losses


@needs_golden
def test_the_adversarial_losses_are_the_published_ones(arrays, allowed):
    real, fake, theirs, ours = (
        torch.from_numpy(arrays[name]).requires_grad_()
        for name in ("gan_pred_real", "gan_pred_fake", "loc_pred_real", "loc_pred_fake")
    )
    loss = relativistic(real, fake)
    agrees(loss, "gan_ragan_D", arrays, allowed)
    agrees(torch.autograd.grad(loss, real)[0], "gan_ragan_D_grad_real", arrays, allowed)
    agrees((least_squares(real, 1) + least_squares(fake, 0)) / 2, "gan_lsgan_D", arrays, allowed)
    agrees((least_squares(theirs, 1) + least_squares(ours, 0)) / 2, "loc_D_P", arrays, allowed)
    total = relativistic(fake, real.detach()) + least_squares(ours, 1)
    agrees(total, "gan_G_total_adv", arrays, allowed)
    for grad, name in zip(
        torch.autograd.grad(total, (fake, ours)), ("gan_G_grad_pred_fake", "loc_G_grad_fake"), strict=True
    ):
        agrees(grad, name, arrays, allowed)


@needs_golden
def test_the_feature_loss_is_the_published_one(arrays, allowed, published):
    vgg = published().vgg
    v = (images(arrays["vgg_img_u8"]) * 2 - 1).requires_grad_()
    target = images(arrays["vgg_target_u8"]) * 2 - 1
    agrees(vgg.prepared(v)[0], "vgg_pre", arrays, allowed)
    found = vgg(v)
    agrees(found[:, :4], "vgg_relu5_1_ch0_3", arrays, allowed)
    agrees(found.mean((2, 3)), "vgg_relu5_1_chan_mean", arrays, allowed)
    loss = feature_distance(found, vgg(target))
    agrees(loss, "vgg_loss_full", arrays, allowed)
    agrees(torch.autograd.grad(loss, v)[0], "vgg_loss_grad_img", arrays, allowed)
    window = np.s_[..., 8:40, 30:62]
    agrees(feature_distance(vgg(v[window]), vgg(target[window])), "vgg_loss_patch32", arrays, allowed)


@needs_golden
def test_the_losses_of_a_fixed_image_are_the_published_ones(arrays, allowed, published, monkeypatch):
    task = published()
    places = [(int(top), int(left)) for left, top in arrays["chain_patch_xy"]]
    monkeypatch.setattr(task, "offsets", lambda height, width: places)
    low, fake, real = (images(arrays[f"chain_{name}_u8"]) for name in ("low", "fake", "real"))
    fake = (2 * fake - 1).requires_grad_()
    faces = task._faces(Batch(low, low, real), fake)
    found = task._generator_losses(Batch(low, low, real), faces)
    agrees(found["global"] + found["local"], "chain_loss_G_A", arrays, allowed)
    agrees(found["features"] + found["patch_features"], "chain_loss_vgg_b", arrays, allowed)
    agrees(sum(found.values()), "chain_loss_G", arrays, allowed)
    gradient = torch.autograd.grad(sum(found.values()), fake, retain_graph=True)[0]
    agrees(gradient, "chain_grad_fake_B", arrays, allowed)
    theirs = task.discriminator_losses(faces)
    for name, judge, key in (("global", "D_A", "D_A"), ("local", "D_P", "D_P")):
        loss = theirs[f"{name}_discriminator"]
        agrees(loss, f"chain_loss_{key}", arrays, allowed)
        grads = torch.autograd.grad(loss, list(task.judges[name].parameters()), retain_graph=True)
        norms = np.array([float(grad.norm()) for grad in grads])
        agrees(norms, f"chain_{judge}_grad_norms", arrays, allowed)


@needs_golden
def test_two_steps_are_the_published_ones(arrays, allowed, published, monkeypatch):
    # float64: where a gradient is nearly zero, Adam's first step hangs on its last bits
    task = published()
    for network in (*task.networks(), task.vgg):
        network.double()
    before = [[value.detach().clone() for value in net.parameters()] for net in task.networks()]
    low, real = (images(arrays[f"chain_{name}_u8"]).double() for name in ("low", "real"))
    x = low.clone()
    x[1] /= 2.5
    for step in (1, 2):
        places = [(int(top), int(left)) for left, top in arrays["steps_patch_xy"][step - 1]]
        monkeypatch.setattr(task, "offsets", lambda height, width, places=places: places)
        found = {name: float(value) for name, value in task.step([Batch(x, x, real, low)]).items()}
        got = [
            found["global"] + found["local"],
            found["features"] + found["patch_features"],
            found["total"],
            found["global_discriminator"],
            found["local_discriminator"],
        ]
        agrees(got, f"steps_losses_{step}", arrays, allowed)
        moved = [
            # float64: these are millions of small differences
            sum(
                float((p.detach() - q).double().square().sum())
                for p, q in zip(net.parameters(), old, strict=True)
            )
            ** 0.5
            for net, old in zip(task.networks(), before, strict=True)
        ]
        agrees(moved, f"steps_param_l2_change_{step}", arrays, allowed)
        mean = task.network.bn1_1.running_mean
        agrees(mean, f"steps_bn1_1_running_mean_{step}", arrays, allowed)


@needs_golden
def test_the_attention_map_and_the_jitter_are_the_published_ones(arrays, allowed):
    v = 2 * images(arrays["att_img_u8"]) - 1
    agrees(v[0], "att_norm", arrays, allowed)
    agrees(attention(v)[0], "att_gray", arrays, allowed)
    dark = images(arrays["aug1_A_u8"]).flip(3) / 2.37
    agrees(2 * dark[0] - 1, "aug1_input_img", arrays, allowed)
    agrees(attention(2 * dark - 1)[0], "aug1_A_gray", arrays, allowed)


# --- the task


def batch(seed=0, count=2):
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, 32, 32, generator=random) * 0.3
    return Batch(x, x, torch.rand(count, 3, 32, 32, generator=random))


def task(recipe=TINY, seed=0):
    torch.manual_seed(seed)
    return EnlightenGANTask(recipe, recipe.steps, 2)


def test_a_step_is_what_three_plain_updates_give():
    ours, plain = task(), task()
    given = batch()
    found = ours.step([given])
    # the published order, each network on its own graph
    optimizers = [
        torch.optim.Adam(net.parameters(), lr=TINY.learning_rate, betas=TINY.betas)
        for net in plain.networks()
    ]
    judge, local = plain.judges["global"], plain.judges["local"]
    real = 2 * given.normal - 1
    fake = plain.generate(given).image
    cut = lambda image: plain._patches(image, plain.offsets(32, 32))  # noqa: E731
    v = 2 * given.x - 1
    total = relativistic(judge(fake), judge(real)) + least_squares(local(cut(fake)), 1)
    total = total + feature_distance(plain.vgg(fake), plain.vgg(v))
    total = total + feature_distance(plain.vgg(cut(fake)), plain.vgg(cut(v)))
    total.backward()
    optimizers[0].step()
    for optimizer in optimizers:
        optimizer.zero_grad()
    fake = fake.detach()
    theirs = relativistic(judge(real), judge(fake))
    theirs = theirs + (least_squares(local(cut(real)), 1) + least_squares(local(cut(fake)), 0)) / 2
    theirs.backward()
    for optimizer in optimizers[1:]:
        optimizer.step()
    torch.testing.assert_close(found["total"], total.detach())
    for mine, other in zip(ours.networks(), plain.networks(), strict=True):
        for (name, a), b in zip(mine.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4, msg=name)


def test_the_discriminators_learn_and_the_generator_moves():
    made = task(replace(TINY, steps=30, learning_rate=1e-3))
    found = [made.step([batch(step)]) for step in range(30)]
    ends = [
        sum(float(one["global_discriminator"] + one["local_discriminator"]) for one in part)
        for part in (found[:5], found[-5:])
    ]
    assert ends[1] < 0.8 * ends[0]
    assert set(found[0]) == {"total", "gradient", *made.loss_names()}
    assert all(float(one["gradient"]) > 0 for one in found)


def test_a_continued_run_gives_the_same_bits(tmp_path):
    class Source:
        steps_per_epoch, photographs = 2, 4

        def batch(self, step, part=0, parts=1):
            return batch(step)

        def size(self, step):
            return 2

        def names(self, step):
            return ["a", "b"]

    whole = task()
    fit(whole, Source(), 4)
    hooks = Hooks(checkpoint=tmp_path / "state.ckpt")
    fit(task(), Source(), 2, pace=Pace(1), hooks=hooks)
    rest = task(seed=5)
    fit(rest, Source(), 4, pace=Pace(1), hooks=hooks)
    for mine, other in zip(whole.networks(), rest.networks(), strict=True):
        for (name, a), b in zip(mine.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_patches_lie_inside_and_elsewhere_in_each_step():
    made = task(replace(TINY, patches=50))
    first = made.offsets(40, 33)
    # the last place that is possible is never drawn, as published
    assert {top for top, _ in first} <= set(range(24))
    assert max(top for top, _ in first) > 15
    assert {left for _, left in first} <= set(range(17))
    made.steps_done = 1
    assert made.offsets(40, 33) != first
    assert task(replace(TINY, patch=32)).offsets(32, 32) == [(0, 0)] * 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precisions_stay_near_each_other(precision):
    found = task(replace(TINY, precision=precision)).step([batch()])
    exact = task(replace(TINY, precision="float32")).step([batch()])
    for name, value in exact.items():
        assert abs(float(found[name]) - float(value)) <= 0.05 * abs(float(value)) + 0.01, name


def test_the_rate_falls_by_passes_as_published():
    recipe = replace(ENLIGHTENGAN_PUBLISHED, width=1, discriminator_width=1, vgg="random")
    made = EnlightenGANTask(recipe, 200 * 3, 3)
    rates = {}
    for epoch in (1, 101, 102, 150, 200):
        for place in (0, 2):
            made.steps_done = (epoch - 1) * 3 + place
            rates[epoch, place] = made.learning_rate()
    wanted = {epoch: 1e-4 * (1 - max(0, epoch - 101) / 100) for epoch in (1, 101, 102, 150, 200)}
    assert all(rates[key] == pytest.approx(wanted[key[0]]) for key in rates)
    assert rates[200, 0] == pytest.approx(1e-6)
    halving = EnlightenGANTask(replace(recipe, decay="halving"), 600, 3)
    halving.steps_done = 102 * 3
    assert halving.learning_rate() == pytest.approx(0.25e-4)


def test_the_result_may_be_milder_and_half_as_large():
    whole = task()
    mild = task(replace(TINY, residual=0.5, stored_as="float16"))
    for made in (whole, mild):
        made.step([batch()])
    before = {name: value.clone() for name, value in mild.average.items()}
    found, wanted = mild.result(), whole.result()
    for name, value in found.items():
        factor = 0.5 if name.startswith("conv10.") else 1
        assert value.dtype == (torch.float16 if value.is_floating_point() else torch.int64)
        torch.testing.assert_close(value.to(wanted[name].dtype), factor * wanted[name], rtol=1e-3, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in mild.average.items())
    x = batch().x
    with whole.averaged() as one, mild.averaged() as other:
        # both in [-1, 1], where nothing is clamped
        a, b = (net.generate(2 * x - 1, attention(2 * x - 1)).residual for net in (one, other))
    torch.testing.assert_close(b, 0.5 * a)


def test_recipes_refuse_what_no_run_can_have():
    for changes, part in (
        ({"decay": "never"}, "decay must be one of"),
        ({"size": 16, "patch": 32}, "patches of 32 do not fit"),
        ({"dark_share": 2.0}, "dark_share"),
        ({"darkening": (4.0, 2.0)}, "darkening"),
        ({"width": 0}, "width"),
        ({"residual": 0.0}, "residual must be positive"),
        ({"compile": True}, "compile is not for enlightengan"),
        ({"padding": "replicate"}, "padding is not for enlightengan"),
        ({"normal_init": 0.1}, "normal_init is not for enlightengan"),
        ({"stored_as": "float8"}, "stored_as"),
    ):
        with refused(ValueError, part):
            replace(ENLIGHTENGAN_PUBLISHED, **changes)
    with refused(ValueError, "photographs of normal light"):
        task().step([batch()._replace(normal=None)])
    with refused(ValueError, "one shape"):
        task().step([batch()._replace(normal=torch.rand(2, 3, 48, 32))])
    with refused(ValueError, "cuda_graph"):
        task(replace(TINY, cuda_graph=True))


# --- our own losses


def scene(seed=0):
    """A dark picture of smooth colours, with black in it."""
    coarse = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.interpolate(coarse.square() * 0.15, (48, 64), mode="bilinear")


def test_a_gain_keeps_colours_and_contrast_and_haze_does_not():
    x = scene()
    haze = 0.4 + x
    blue = 4 * x + torch.tensor([0.0, 0.0, 0.2], dtype=x.dtype).view(3, 1, 1)
    assert losses.contrast_consistency(4 * x, x) < 1e-4
    assert losses.contrast_consistency(haze, x) > 0.01
    gains = torch.where(torch.arange(64) < 32, 2.0, 8.0)
    assert losses.contrast_consistency(gains * x, x) > 0.05
    assert losses.chroma_consistency(4 * x, x) < 1e-7
    assert losses.chroma_consistency(blue, x) > 0.005
    # a gamma is one exponent for the image, within what is allowed
    assert losses.contrast_consistency((x + 1e-3) ** 0.8, x) < 0.3 * losses.contrast_consistency(haze, x)
    assert losses.overshoot(4 * x, x) == 0
    assert losses.overshoot(x + 1, x) > 0.02
    assert losses.overshoot(x + 1, x + 1) == 0
    for loss in (losses.contrast_consistency, losses.chroma_consistency):
        black = torch.zeros_like(x)
        assert loss(black, black) == 0
        assert torch.isfinite(loss(-x, x))


def test_dimness_counts_what_an_image_lacks_of_normal_light():
    x = torch.stack([torch.full((3, 8, 6), level, dtype=torch.float64) for level in (0.13, 0.43, 0.9)])
    x[0, :, :4] += 0.05
    x[0, :, 4:] -= 0.05
    torch.testing.assert_close(losses.dimness(x), torch.tensor(0.3**2 / 3, dtype=torch.float64))
    x.requires_grad_()
    losses.dimness(x).backward()
    assert (x.grad[0] < 0).all()
    assert (x.grad[1:] == 0).all()


def test_one_gain_is_smooth_and_a_chequerboard_is_not():
    x = scene()[:1, :, :12, :10].clamp(0.05, 0.6)
    places = torch.arange(12)[:, None] + torch.arange(10)
    for gain, expected in ((torch.tensor(0.7), 0.0), (0.1 * (-1.0) ** places, 2 * 0.2**2)):
        y = torch.sigmoid(torch.logit(x) + 2 * gain.to(x.dtype))
        torch.testing.assert_close(losses.gain_smoothness(y, x), torch.tensor(expected, dtype=x.dtype))
    y = (0.4 + 0.5 * x).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: losses.gain_smoothness(y, x), y)
    # beyond black and white there is nothing to differ
    assert losses.gain_smoothness(torch.full_like(x, 2.0), torch.ones_like(x)) == 0


def test_the_gradients_of_our_losses_are_right():
    x = scene()[:1, :, :16, :24]
    # a leaf that nothing detached hangs on: ratio and exponent are constants to the gradient
    y = (0.4 + x).requires_grad_()
    grad = torch.autograd.grad(losses.chroma_consistency(y, x), y)[0]
    grey = torch.nn.functional.avg_pool2d(y, 4).mean(1, keepdim=True).detach()
    ratio = (grey / torch.nn.functional.avg_pool2d(x, 4).mean(1, keepdim=True).clamp(min=2 / 255)).clamp(0, 6)

    def fixed(y):
        a, b = (torch.nn.functional.avg_pool2d(image, 4) for image in (y, x))
        return ((a - a.mean(1, keepdim=True)) - ratio * (b - b.mean(1, keepdim=True))).square().mean()

    assert torch.autograd.gradcheck(fixed, y)
    torch.testing.assert_close(grad, torch.autograd.grad(fixed(y), y)[0])
    # haze is to be taken away: less light where it is darkest
    grad = torch.autograd.grad(losses.contrast_consistency(y, x), y)[0].sum(1)
    darkest, brightest = (x.mean(1) < x.mean(1).quantile(0.2)), (x.mean(1) > x.mean(1).quantile(0.8))
    assert grad[darkest].sum() > 0 > grad[brightest].sum()


def test_our_losses_need_cells():
    for loss, size in ((losses.chroma_consistency, 4), (losses.contrast_consistency, 16)):
        x = torch.rand(1, 3, size - 1, 20)
        with refused(ValueError, loss.__name__):
            loss(x, x)
    made = task(replace(TINY, chroma=1.0, contrast=1.0, overshoot=1.0, dimness=1.0, identity=1.0))
    found = made.step([batch()])
    assert {"chroma", "contrast", "overshoot", "dimness", "identity"} <= found.keys() & set(made.loss_names())


# --- the sources


def photographs(count, low, high, size=(48, 40)):
    """Each of one colour, so that a crop tells its photograph."""
    return [
        torch.full(
            (size[1], size[0], 3), round(low + (high - low) * index / max(1, count - 1)), dtype=torch.uint8
        )
        for index in range(count)
    ]


def source(low=3, normal=5, **settings):
    settings = {"size": 32, **settings}
    return Unpaired(photographs(low, 10, 60), 2, 0, normal=photographs(normal, 150, 250), **settings)


def shown(images):
    return [round(255 * float(image.mean())) for image in images]


def test_a_pass_shows_the_larger_side_once():
    made = source()
    assert made.steps_per_epoch == 3
    assert made.photographs == 8
    dark = [level for step in range(3) for level in shown(made.batch(step).x)]
    assert sorted(dark) == sorted([10, 35, 60, 10, 35])
    assert sum(made.size(step) for step in range(3)) == 5
    assert [len(made.names(step)) for step in range(3)] == [2, 2, 1]


def test_the_normal_side_is_drawn_or_goes_by_index():
    def pairs(made, passes=4):
        found = set()
        for step in range(3 * passes):
            given = made.batch(step)
            found |= set(zip(shown(given.x), shown(given.normal), strict=True))
        return found

    assert len(pairs(source(by_index=True))) == 5
    assert len(pairs(source())) > 8


def test_a_share_of_the_dark_side_is_darkened_further():
    made = source(low=5, normal=5, dark_share=0.5)
    factors = []
    for step in range(60):
        given = made.batch(step)
        before = given.x if given.undarkened is None else given.undarkened
        assert given.target is given.x
        factors += (before.mean((1, 2, 3)) / given.x.mean((1, 2, 3))).tolist()
    darker = [factor for factor in factors if factor > 1.001]
    assert 0.35 < len(darker) / len(factors) < 0.65
    assert min(darker) >= 1.99
    assert max(darker) <= 4.01
    assert source(dark_share=0.0).batch(0).undarkened is None


def test_parts_are_the_whole_and_mirrors_are_seen():
    ramp = torch.arange(48, dtype=torch.uint8)[None, :, None].expand(40, 48, 3).contiguous()
    steep = (3 * torch.arange(40, dtype=torch.uint8))[:, None, None].expand(40, 48, 3).contiguous()
    made = Unpaired([ramp] * 4, 4, 0, normal=[steep] * 4, size=32, flips=True, dark_share=0.5)
    mirrored, upside = set(), set()
    for step in range(8):
        whole = made.batch(step)
        parts = [made.batch(step, part, 3) for part in range(3)]
        for name in ("x", "target", "normal"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
        mirrored |= {bool(row[0] > row[-1]) for row in whole.x[:, 0, 0]}
        upside |= {bool(column[0] > column[-1]) for column in whole.normal[:, 0, :, 0]}
    assert mirrored == upside == {True, False}


def test_dark_frames_are_made_of_others_than_the_normal_ones():
    made = UnpairedExposures(
        photographs(3, 100, 110), Synthesis(bright_share=0.0), 16, 4, 0, normal=photographs(2, 150, 160)
    )
    given = made.batch(0)
    assert given.normal.shape == given.x.shape == (4, 3, 16, 16)
    assert set(shown(given.normal)) <= {150, 160}
    assert given.x.mean() < 0.3
    # what the dark frames should become is known, and scores the run
    assert given.target.mean() > given.x.mean()
    halves = [made.batch(0, part, 2) for part in range(2)]
    assert torch.equal(torch.cat([half.normal for half in halves]), given.normal)
    assert made.photographs == 5


def test_every_second_step_may_be_wide():
    synthesis = Synthesis(bright_share=0.0, zoom=2.0, wide_steps=True)
    ramps = [torch.arange(64, dtype=torch.uint8)[None, :, None].expand(70, 64, 3).contiguous()] * 3
    made = UnpairedExposures(ramps, synthesis, 32, 8, 0, normal=ramps)
    for step, (count, side) in enumerate(((8, 32), (2, 64), (8, 32), (2, 64))):
        given = made.batch(step)
        assert given.x.shape == given.target.shape == given.normal.shape == (count, 3, side, side)
        assert made.size(step) == len(made.names(step)) == count
        # as many pixels of the photograph as the frame is wide, at least
        spread = (given.normal.amax((2, 3)) - given.normal.amin((2, 3)))[:, 0] * 255
        assert (spread >= side - 1.5).all()
        halves = [made.batch(step, part, 2) for part in range(2)]
        assert torch.equal(torch.cat([half.x for half in halves]), given.x)
    assert UnpairedExposures(ramps, synthesis, 32, 2, 0, normal=ramps).size(1) == 1
    with refused(ValueError, "wide_steps needs a zoom of at least 2", "1.5"):
        Synthesis(zoom=1.5, wide_steps=True)


def test_a_folder_alone_is_divided(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, level in enumerate((20, 120, 130, 140, 150, 250)):
        Image.new("RGB", (40, 36), (level,) * 3).save(folder / f"{index}.png")
    recipe = replace(TINY, synthesis=Synthesis())
    made = open_source(collect(folder), recipe, 0, cache=tmp_path / "cache", device=torch.device("cpu"))
    levels = {level for step in range(20) for level in shown(made.batch(step).normal)}
    assert levels == {120, 140}
    names = {name for step in range(20) for name in made.names(step)}
    assert names == {"0.png", "2.png", "4.png", "5.png"}
    with refused(ValueError, "both sides"):
        open_source(collect(folder), TINY, 0, cache=tmp_path / "cache", device=torch.device("cpu"))
    for name in ("1", "2", "3", "4"):
        (folder / f"{name}.png").unlink()
    with refused(ValueError, "at least two photographs", "found 0 of 2"):
        open_source(collect(folder), recipe, 0, cache=tmp_path / "cache", device=torch.device("cpu"))


# --- whole runs


@pytest.fixture
def sides(tmp_path):
    for side, brightest in (("low", 60), ("normal", 255)):
        (tmp_path / side).mkdir()
        for index in range(3):
            picture(index, (44, 40), brightest).save(tmp_path / side / f"{side}{index}.png")
    return tmp_path / "low", tmp_path / "normal"


def test_two_folders_make_weights_that_enhance(sides, tmp_path):
    low, normal = sides
    result = fastllie.train(
        "enlightengan",
        low=low,
        normal=normal,
        output=tmp_path / "run",
        epochs=2,
        every=2,
        log_every=1,
        **SMALL,
    )
    assert result.steps == 4
    # a discriminator that learns makes a total mean something else in every step
    assert result.best is None
    line = json.loads(result.log.read_text().splitlines()[-1])["values"]
    assert {"global", "local", "features", "local_discriminator"} <= line.keys()
    image = np.full((20, 37, 3), 30, np.uint8)
    assert fastllie.enhance(image, "enlightengan", weights=result.weights).shape == image.shape
    with safe_open(result.weights, "pt") as file:
        told = json.loads(file.metadata()["recipe"])
    assert told["width"] == 2
    tuned = fastllie.finetune(
        "enlightengan",
        (low, normal),
        weights=result.weights,
        output=tmp_path / "tuned",
        paired=False,
        steps=1,
        **{key: value for key, value in SMALL.items() if key != "width"},
        width=2,
    )
    assert load_file(tuned.weights).keys() == load_file(result.weights).keys()


def test_the_command_line_trains_on_two_sides(sides, tmp_path, monkeypatch):
    low, normal = sides
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    command = ["enlightengan", str(low), "--normal", str(normal), "--steps", "2", "--validation", "none"]
    assert cli.main(["train", *command, "-o", str(tmp_path / "run"), *flags]) == 0
    again = ["train", "--config", str(tmp_path / "run" / "config.toml"), "-o", str(tmp_path / "again")]
    assert cli.main(again) == 0
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("run", "again"))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_synthetic_frames_are_scored_by_what_they_should_become(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(8):
        picture(index, (40, 36), 255).save(folder / f"{index}.png")
    result = fastllie.train(
        "enlightengan",
        folder,
        output=tmp_path / "run",
        steps=2,
        validation=0.5,
        synthesis={"zoom": 1.0},
        **SMALL,
    )
    assert result.best is not None
    assert '"PSNR"' in (tmp_path / "run" / "validation.jsonl").read_text()


def test_what_is_missing_is_told_before_the_photographs_are_read(sides, tmp_path):
    low, normal = sides
    with refused(FileNotFoundError, "no such file of VGG-16 weights"):
        fastllie.train(
            "enlightengan", low=tmp_path / "none", normal=normal, output=tmp_path / "x", vgg="none.pth"
        )
    with refused(TypeError, "wanted data, or low and normal"):
        fastllie.train("enlightengan", low=low, output=tmp_path / "x")
    with refused(TypeError, "wanted data, or low and normal"):
        fastllie.train("enlightengan", low, low=low, normal=normal, output=tmp_path / "x")
    with refused(TypeError, "no pairs"):
        fastllie.train("enlightengan", low=low, normal=normal, paired=True, output=tmp_path / "x")
    with refused(ValueError, "both sides"):
        fastllie.train("enlightengan", low, output=tmp_path / "x", **SMALL)
    with refused(ValueError, "no use for photographs of normal light"):
        fastllie.train("zerodce", low=low, normal=normal, output=tmp_path / "x")
    assert recipes.SHIPPED["enlightengan"]
