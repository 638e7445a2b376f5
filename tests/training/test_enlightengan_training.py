"""Training EnlightenGAN: the published losses and steps, its sources, runs from photographs to weights."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import picture, refused
from safetensors import safe_open
from safetensors.torch import load_file

import fastllie
from fastllie import cli
from fastllie.models.enlightengan import attention
from fastllie.training import recipes
from fastllie.training.data import Batch
from fastllie.training.enlightengan import EnlightenGANTask
from fastllie.training.losses.adversarial import feature_distance, least_squares, relativistic
from fastllie.training.losses.vgg import VGG16
from fastllie.training.recipes import ENLIGHTENGAN_PUBLISHED, EnlightenGANRecipe
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
        made.average["bn1_1.running_var"].fill_(1e5)  # more than float16 holds
    before = {name: value.clone() for name, value in mild.average.items()}
    found, wanted = mild.result(), whole.result()
    for name, value in found.items():
        factor = 0.5 if name.startswith("conv10.") else 1
        kind = torch.float32 if name.endswith("running_var") else torch.float16
        assert value.dtype == (kind if value.is_floating_point() else torch.int64)
        assert value.isfinite().all(), name
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


# --- whole runs


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
