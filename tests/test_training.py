"""Losses, tasks, data and the loop: on their own, and against the published code's results where at hand."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import fastllie
from fastllie.models import ZeroDCE, ZeroDCEPlusPlus
from fastllie.training import card, data, losses, recipes, reproduce, trainer
from fastllie.training.data import Batch
from fastllie.training.recipes import LossWeights, Recipe, Synthesis
from fastllie.training.zerodce import CurveTask

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "zerodce"
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="../shared/golden/zerodce is not beside the checkout"
)
LOSS_CASES = (
    "zerodce_losses_real",
    "zerodce_losses_random",
    "zerodcepp_losses_real",
    "zerodcepp_losses_random",
)

TINY = Recipe(
    method="zerodce",
    padding="replicate",
    size=32,
    batch=2,
    epochs=None,
    steps=4,
    learning_rate=1e-3,
    warmup=2,
    cosine=True,
    average=0.9,
    clip=1.0,
    losses=LossWeights(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
)


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def close(got, expected, rtol=0.0, atol=0.0, atol_rel_max=0.0):
    got, expected = got.double(), expected.double()
    allowed = atol + rtol * expected.abs() + atol_rel_max * expected.abs().max()
    excess = ((got - expected).abs() - allowed).max()
    assert excess <= 0, f"off by {excess:.3e} more than allowed"


def published_layout(method, arrays, prefix):
    """A published state dict in our names and sign: the published network emits -alpha."""
    last = "conv7" if method == "zerodce" else "conv7.point"
    state = {}
    for key, value in arrays.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix).replace("e_conv", "conv").replace("_conv", "")
            state[name] = -value if name.startswith(last + ".") else value
    return state


# --- losses


@needs_golden
@pytest.mark.parametrize("case", LOSS_CASES)
@pytest.mark.parametrize("name", ["spa", "col", "exp", "tv"])
def test_losses_match_the_published(case, name):
    arrays = golden(case)
    y, x = arrays["enh"].requires_grad_(), arrays["org"]
    alpha = (-arrays["A"]).requires_grad_()
    loss = {
        "spa": lambda: losses.spatial_consistency(y, x),
        "col": lambda: losses.colour_constancy(y),
        "exp": lambda: losses.exposure(y),
        "tv": lambda: losses.map_smoothness(alpha),
    }[name]()
    loss.backward()
    close(loss, arrays[name], rtol=1e-5)
    gradient = -alpha.grad if name == "tv" else y.grad
    close(gradient, arrays[f"d_{name}"], rtol=1e-4, atol_rel_max=1e-5)


@needs_golden
def test_colour_loss_of_a_grey_image_matches_the_safe_golden():
    arrays = golden("zerodce_losses_grey")
    y = arrays["enh"].requires_grad_()
    losses.colour_constancy(y).backward()
    assert torch.equal(y.grad, arrays["d_col_safe"])


def test_colour_loss_has_no_nan_where_one_image_is_grey():
    y = torch.rand(2, 3, 8, 8)
    y[0] = 0
    y.requires_grad_()
    loss = losses.colour_constancy(y)
    loss.backward()
    assert loss > 0
    assert torch.equal(y.grad[0], torch.zeros(3, 8, 8))
    assert y.grad[1].isfinite().all()
    assert y.grad[1].abs().max() > 0


def test_losses_by_hand():
    x = torch.zeros(1, 3, 8, 8)
    y = x.clone()
    y[..., :4, :4] = 0.5
    # one of 2x2 cells differs by 0.5: two neighbour pairs count twice, two borders once
    assert losses.spatial_consistency(y, x).item() == pytest.approx((2 * 2 + 2) * 0.25 / 4)
    assert losses.exposure(torch.full((2, 3, 33, 20), 0.4), level=0.6).item() == pytest.approx(0.04, rel=1e-4)
    grey_shift = torch.tensor([0.1, 0.2, 0.4]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert losses.colour_constancy(grey_shift).item() == pytest.approx((0.1**4 + 0.3**4 + 0.2**4) ** 0.5)
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(2, 5, 3, 4)
    assert losses.map_smoothness(ramp).item() == pytest.approx(2 * 5)


def test_supervised_losses_measure_what_they_say():
    torch.manual_seed(0)
    target = torch.rand(2, 3, 24, 24) * 0.8 + 0.1
    darker = target * 0.5
    roots = (0.25 * target.square().mean((1, 2, 3)) + 1e-4).sqrt()
    assert losses.reconstruction(darker, target).item() == pytest.approx(roots.mean().item(), rel=1e-5)
    assert losses.scaled_reconstruction(darker, target).item() == pytest.approx(0, abs=1e-6)
    assert losses.dissimilarity(target, target).item() == pytest.approx(0, abs=1e-6)
    assert losses.dissimilarity(darker, target).item() > 0.1


def test_a_grey_illumination_costs_nothing():
    grey = torch.rand(2, 1, 4, 4).expand(2, 3, 4, 4)
    assert losses.grey_illumination(grey).item() == pytest.approx(0, abs=1e-12)
    coloured = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert losses.grey_illumination(coloured).item() == pytest.approx((0.25 + 0.25) / 3, rel=1e-5)
    assert losses.grey_illumination(0.5 * coloured).item() == pytest.approx((0.25 + 0.25) / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "size"),
    [("spatial_consistency", 3), ("exposure", 15), ("map_smoothness", 1), ("dissimilarity", 6)],
)
def test_losses_name_a_size_that_is_too_small(loss, size):
    image = torch.rand(1, 3, size, 32)
    arguments = (image, image) if loss in ("spatial_consistency", "dissimilarity") else (image,)
    with pytest.raises(ValueError, match=rf"{loss} needs .*\(1, 3, {size}, 32\)"):
        getattr(losses, loss)(*arguments)


@pytest.mark.parametrize(
    "name", ["spatial_consistency", "reconstruction", "scaled_reconstruction", "dissimilarity"]
)
def test_paired_losses_have_true_gradients(name):
    torch.manual_seed(0)
    y = (torch.rand(1, 3, 8, 8, dtype=torch.float64) * 0.5 + 0.25).requires_grad_()
    other = torch.rand(1, 3, 8, 8, dtype=torch.float64) * 0.5 + 0.25
    if name == "scaled_reconstruction":
        # its factor is held fixed on purpose, so only the sign pattern can be checked
        losses.scaled_reconstruction(y, other).backward()
        factor = other.mean() / y.detach().mean()
        expected = torch.sign(y.detach() * factor - other) * factor / y.numel()
        torch.testing.assert_close(y.grad, expected)
        return
    assert torch.autograd.gradcheck(lambda image: getattr(losses, name)(image, other), y)


# --- the published recipe, step by step


@needs_golden
@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
def test_ten_steps_match_the_published(method):
    arrays = golden("zerodce_train10" if method == "zerodce" else "zerodcepp_train10")
    task = CurveTask(recipes.RECIPES[method]["official"], total_steps=10)
    task.network.load_state_dict(published_layout(method, arrays, "init."))
    x = arrays["batch_u8"].permute(0, 3, 1, 2).float() / 255
    columns = ("total", "map_smoothness", "spatial_consistency", "colour_constancy", "exposure", "gradient")
    for expected in arrays["log"]:
        values = task.step(Batch(x, x))
        close(torch.tensor([values[name] for name in columns]), expected, rtol=1e-4)
    for name, expected in published_layout(method, arrays, "final.").items():
        close(task.network.state_dict()[name], expected, atol=2e-6)
        assert torch.equal(task.result()[name], task.network.state_dict()[name])


def test_published_recipes_keep_the_published_numbers():
    for method, weight, size, epochs, init in (
        ("zerodce", 200, 256, 200, 0.02),
        ("zerodce++", 1600, 512, 100, None),
    ):
        recipe = recipes.RECIPES[method]["official"]
        assert (recipe.size, recipe.epochs, recipe.normal_init, recipe.batch) == (size, epochs, init, 8)
        assert recipe.losses == LossWeights(weight, 1, 5, 10)
        assert (recipe.learning_rate, recipe.weight_decay, recipe.clip) == (1e-4, 1e-4, 0.1)
        assert (recipe.padding, recipe.cosine, recipe.average, recipe.synthesis) == (
            "zeros",
            False,
            0.0,
            None,
        )


def test_normal_init_spreads_weights_as_asked():
    torch.manual_seed(0)
    network = CurveTask(recipes.ZERODCE_PUBLISHED, 1).network
    assert network.conv5.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert network.conv5.bias.abs().max().item() <= (64 * 9) ** -0.5


def test_task_follows_warmup_cosine_and_scales():
    task = CurveTask(replace(TINY, method="zerodce++", scales=(1, 2)), total_steps=4)
    batch = Batch(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
    rates, scales = [], []
    for _ in range(4):
        task.step(batch)
        rates.append(task.optimizer.param_groups[0]["lr"])
        scales.append(task.network.scale)
    cosine = [0.5 * (1 + np.cos(np.pi * step / 4)) for step in range(4)]
    warm = [1 / 3, 2 / 3, 1, 1]
    assert rates == pytest.approx([1e-3 * a * b for a, b in zip(cosine, warm, strict=True)])
    assert scales == [1, 2, 1, 2]


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="'retinex'"):
        CurveTask(replace(TINY, method="retinex"), 1)


# --- data


@pytest.fixture
def photos(tmp_path):
    """Five small photographs of smooth colour and texture, one of them CC0, with their attribution."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = ["file,author,licence"]
    for index in range(5):
        coarse = random.integers(30, 225, (4, 5, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((80, 64), Image.Resampling.BICUBIC)
        image.save(folder / f"{index}.png")
        rows.append(f"{index}.png,Author {index},{'CC0-1.0' if index == 3 else 'CC-BY-4.0'}")
    (folder / "photos.csv").write_text("\n".join(rows) + "\n")
    return folder


def source(folder, seed=0, **changes):
    pixels = [data.decode(folder / p.file, short_side=64) for p in data.list_photographs(folder)]
    return data.SyntheticExposures(pixels, replace(Synthesis(), **changes), size=32, batch=4, seed=seed)


def test_cc0_photographs_are_held_out_and_attributed(photos):
    training = data.list_photographs(photos)
    assert [photo.file for photo in training] == ["0.png", "1.png", "2.png", "4.png"]
    assert training[1] == data.Photograph("1.png", "Author 1", "CC-BY-4.0")
    assert [photo.file for photo in data.list_photographs(photos, held_out=True)] == ["3.png"]
    (photos / "photos.csv").unlink()
    assert len(data.list_photographs(photos)) == 5


def test_batches_depend_on_seed_and_step_alone(photos):
    first, again = source(photos), source(photos)
    again.batch(7)
    assert torch.equal(first.batch(3).x, again.batch(3).x)
    assert torch.equal(first.batch(3).target, again.batch(3).target)
    assert not torch.equal(first.batch(3).x, first.batch(4).x)
    assert not torch.equal(first.batch(3).x, source(photos, seed=1).batch(3).x)


NOISELESS = {"read_noise": (1e-9, 1e-9), "shot_noise": (1e-14, 1e-14), "jpeg_share": 0.0}


def test_dark_frames_are_8_bit_and_darker_than_their_targets(photos):
    for batch in map(
        source(photos, bright_share=0.0, exposures=(-4.0, -4.0), mixed_share=0.0).batch, range(3)
    ):
        assert batch.x.shape == batch.target.shape == (4, 3, 32, 32)
        assert batch.x.dtype == batch.target.dtype == torch.float32
        torch.testing.assert_close(batch.x * 255, (batch.x * 255).round(), rtol=0, atol=1e-4)
        assert batch.x.min() >= 0
        assert batch.x.max() <= 1
        assert batch.target.max() < 0.99
        assert (batch.x.mean((1, 2, 3)) < 0.5 * batch.target.mean((1, 2, 3))).all()


def test_well_exposed_frames_are_their_own_targets(photos):
    batch = source(photos, bright_share=1.0, bright_exposures=(-0.5, 0.5), **NOISELESS).batch(0)
    assert (batch.x - batch.target).abs().max() < 0.5 / 255 + 1e-4


def test_mixed_frames_have_two_exposures_and_one_target():
    grey = [np.full((64, 64, 3), 128, np.uint8)]
    synthesis = replace(
        Synthesis(), bright_share=0.0, mixed_share=1.0, exposures=(-5.0, -5.0), target_mean=0.0, **NOISELESS
    )
    frames = data.SyntheticExposures(grey, synthesis, 64, 8, 0).batch(0)
    spread = frames.x.amax((1, 2, 3)) - frames.x.amin((1, 2, 3))
    assert (spread > 0.1).sum() >= 4
    lifted = frames.target[frames.x < 0.15]
    torch.testing.assert_close(lifted, torch.full_like(lifted, 128 / 255), rtol=0, atol=1e-3)


def test_casts_colour_the_frame_and_its_target_alike():
    grey = [np.full((64, 64, 3), 90, np.uint8)]
    synthesis = replace(
        Synthesis(), bright_share=0.0, mixed_share=0.0, exposures=(-1.0, -1.0), lift=(0.0, -0.5), **NOISELESS
    )
    plain, cast = (
        data.SyntheticExposures(grey, replace(synthesis, target_mean=0.0, cast=amount), 64, 8, 0).batch(0)
        for amount in (0.0, 0.5)
    )
    assert (plain.target.amax(1) - plain.target.amin(1)).max() < 1e-6
    assert (cast.target.amax(1) - cast.target.amin(1)).mean() > 0.05
    frame, target = (((values + 0.055) / 1.055) ** 2.4 for values in cast)
    seen = cast.x > 0.1  # below, the encoding is another one, and 8 bits are coarse
    torch.testing.assert_close((2 * frame)[seen], target[seen], rtol=0.03, atol=0)
    assert seen.float().mean() > 0.5


def test_noise_grows_with_the_light_and_is_seen(photos):
    grey = [np.full((64, 64, 3), 128, np.uint8)]
    levels = {"exposures": (-4.0, -4.0), "bright_share": 0.0, "mixed_share": 0.0, "jpeg_share": 0.0}
    deviations = []
    for read, shot in ((1e-9, 1e-14), (2e-3, 1e-14), (2e-3, 1e-3)):
        synthesis = replace(Synthesis(), read_noise=(read, read), shot_noise=(shot, shot), **levels)
        deviations.append(
            data.SyntheticExposures(grey, synthesis, 64, 4, 0).batch(0).x.std((2, 3)).mean().item()
        )
    assert deviations[0] < 0.5 / 255
    assert 2 / 255 < deviations[1] < deviations[2]


def test_dark_photographs_are_exposed_up_first():
    dark = np.full((64, 64, 3), 40, np.uint8)
    bright = np.full((64, 64, 3), 150, np.uint8)
    synthesis = replace(
        Synthesis(), target_mean=0.4, bright_share=0.0, exposures=(-5.0, -5.0), mixed_share=0.0
    )
    means = [
        data.SyntheticExposures([photo], synthesis, 32, 2, 0).batch(0).target.mean().item()
        for photo in (dark, bright)
    ]
    # 40 of 255 takes less than the two stops that are allowed
    assert 0.27 < means[0] <= 0.41
    assert means[1] == pytest.approx(150 / 255, abs=0.01)


def test_compression_keeps_ratios_and_stays_under_the_ceiling():
    light = np.linspace(0, 3, 200, dtype=np.float32)[:, None] * np.array([1.0, 0.5, 0.25], np.float32)
    rolled = data.compress(light, 0.95)
    np.testing.assert_allclose(rolled[1:] / rolled[1:, :1], np.tile([1, 0.5, 0.25], (199, 1)), rtol=1e-5)
    assert rolled.max() < 0.95
    np.testing.assert_array_equal(rolled[light[:, 0] <= 0.6], light[light[:, 0] <= 0.6])
    assert (np.diff(rolled[:, 0]) > 0).all()


def test_squares_show_each_photograph_once_a_pass():
    pixels = [np.full((16, 16, 3), value, np.uint8) for value in range(0, 250, 50)]
    squares = data.Squares(pixels, batch=2, seed=0)
    assert squares.steps_per_epoch == 3
    for epoch in range(2):
        values = torch.cat([squares.batch(3 * epoch + step).x[:, 0, 0, 0] for step in range(3)])
        assert sorted((values * 255).round().tolist()) == [0, 50, 100, 150, 200]


def test_decode_keeps_the_orientation_and_the_sizes(tmp_path):
    image = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert data.decode(tmp_path / "turned.jpg").shape == (40, 20, 3)
    assert data.decode(tmp_path / "turned.jpg", short_side=10).shape == (20, 10, 3)
    assert data.decode(tmp_path / "turned.jpg", square=12).shape == (12, 12, 3)


def test_bad_folders_and_files_are_named(photos, tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        data.list_photographs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no photographs to train on"):
        data.list_photographs(tmp_path / "empty")
    (tmp_path / "empty" / "photos.csv").write_text("file,rights\n")
    with pytest.raises(ValueError, match=r"photos\.csv has no column author, licence"):
        data.list_photographs(tmp_path / "empty")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read as an image"):
        data.decode(photos / "broken.jpg")
    truncated = (photos / "0.png").read_bytes()[:-200]
    (photos / "short.png").write_bytes(truncated)
    with pytest.raises(ValueError, match=r"short\.png cannot be read as an image"):
        data.decode(photos / "short.png")


# --- the loop


@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
def test_resumed_run_equals_an_unbroken_one(photos, tmp_path, method):
    recipe = replace(TINY, method=method, scales=(1, 2) if method == "zerodce++" else (1,))

    def fresh():
        torch.manual_seed(0)
        return CurveTask(recipe, 6)

    batches = source(photos)
    unbroken = fresh()
    trainer.fit(unbroken, batches, 6)
    checkpoint = tmp_path / "run.ckpt"
    trainer.fit(fresh(), batches, 3, checkpoint=checkpoint, every=2)
    torch.manual_seed(99)
    resumed, lines = CurveTask(recipe, 6), []
    trainer.fit(resumed, batches, 6, checkpoint=checkpoint, every=2, log=lines.append)
    assert [line.split("  ")[0] for line in lines] == ["step 4/6", "step 6/6"]
    for name, value in unbroken.result().items():
        assert torch.equal(value, resumed.result()[name]), name
        assert torch.equal(unbroken.network.state_dict()[name], resumed.network.state_dict()[name]), name
    assert not list(tmp_path.glob("*.part"))


def test_checkpoint_of_another_recipe_is_refused(photos, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    trainer.fit(CurveTask(TINY, 4), source(photos), 1, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="the checkpoint was made with recipe"):
        trainer.fit(CurveTask(replace(TINY, clip=2.0), 4), source(photos), 2, checkpoint=checkpoint)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    class Source:
        def batch(self, step):
            x = torch.full((1, 3, 32, 32), 0.5 if step < 2 else float("nan"))
            return Batch(x, x)

    checkpoint = tmp_path / "run.ckpt"
    with pytest.raises(RuntimeError, match="step 3: a loss is not finite"):
        trainer.fit(CurveTask(TINY, 4), Source(), 4, checkpoint=checkpoint, every=1)
    assert torch.load(checkpoint, weights_only=True)["steps_done"] == 2


# --- the weights that ship


@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
def test_reproduce_writes_weights_and_card(photos, tmp_path, method, capsys, monkeypatch):
    shipped = recipes.SHIPPED[method]
    name = next(iter(shipped))
    monkeypatch.setitem(shipped, name, replace(shipped[name], size=48, batch=2))
    scores = tmp_path / "scores.json"
    title = card.TITLES[method]
    scores.write_text(
        json.dumps({"columns": {"a": "A"}, "rows": {f"{title} ours": {"a": 1.25}, "Other": {"a": 2.0}}})
    )
    command = [method, "--photos", str(photos), "-o", str(tmp_path / "out"), "--steps", "2", "--threads", "1"]
    before = torch.get_num_threads()
    try:
        assert reproduce.main([*command, "--scores", str(scores)]) == 0
    finally:
        torch.set_num_threads(before)
    assert "step 2/2" in capsys.readouterr().out
    weights = tmp_path / "out" / fastllie.info(method).weights[0].file
    with safe_open(weights, "pt") as file:
        assert {file.metadata()[key] for key in ("format", "method", "padding")} == {
            "fastllie",
            method,
            "replicate",
        }
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    network = (ZeroDCE if method == "zerodce" else ZeroDCEPlusPlus)()
    network.load_state_dict(state)
    text = weights.with_suffix(".md").read_text()
    assert "| 1.png | Author 1 | CC-BY-4.0 |" in text
    assert "3.png" not in text
    assert f"| {title} ours | 1.250 |" in text
    assert "Other" not in text
    assert sorted(path.name for path in weights.parent.iterdir()) == [
        weights.with_suffix(".md").name,
        weights.name,
    ]


@pytest.mark.parametrize(
    ("method", "variant"), [(method, name) for method in recipes.SHIPPED for name in recipes.SHIPPED[method]]
)
def test_shipped_weights_are_of_the_recipe_here_and_have_a_card(method, variant):
    file = next(entry.file for entry in fastllie.info(method).weights if entry.name == variant)
    weights = Path(fastllie.__file__).parent / "weights" / file
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    expected = asdict(recipes.SHIPPED[method][variant])
    assert json.loads(metadata["recipe"]) == json.loads(json.dumps(expected))
    text = weights.with_suffix(".md").read_text(encoding="utf-8")
    assert text.count("| CC-BY") == json.loads(metadata["run"])["photographs"]
    assert f"{card.TITLES[method]} ours" in text


def test_every_variant_that_ships_has_its_recipe():
    for method in fastllie.list_methods():
        names = [variant.name for variant in fastllie.info(method).weights]
        assert list(recipes.SHIPPED[method]) == names
        assert set(recipes.RECIPES[method]) >= {"official", *names}
        assert "official" in recipes.FINETUNES[method]


def test_reproduce_runs_the_published_recipe(photos, tmp_path):
    recipe = replace(recipes.ZERODCE_PUBLISHED, size=32, epochs=2)
    threads = torch.get_num_threads()
    weights = reproduce.reproduce(recipe, photos, tmp_path / "out", stem="published", threads=threads)
    with safe_open(weights, "pt") as file:
        assert json.loads(file.metadata()["run"])["steps"] == 2
        assert file.metadata()["padding"] == "zeros"


def test_reproduce_reports_what_is_wrong(photos, tmp_path, capsys):
    (photos / "broken.jpg").write_bytes(b"nothing")
    assert reproduce.main(["zerodce", "--photos", str(photos), "-o", str(tmp_path / "out")]) == 2
    assert "broken.jpg" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_card_refuses_foreign_weights(tmp_path, photos, capsys):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert card.main([str(tmp_path / "foreign.safetensors"), "--photos", str(photos)]) == 2
    assert "was not written by" in capsys.readouterr().err
