"""Losses, tasks, data and the loop: on their own, and against the published code's results where at hand."""

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import attributed_photographs
from safetensors import safe_open

import fastllie
from fastllie.models import ZeroDCE, ZeroDCEPlusPlus
from fastllie.training import losses, recipes, reproduce
from fastllie.training.data import Batch
from fastllie.training.recipes import LossWeights, Recipe, Synthesis
from fastllie.training.record import card
from fastllie.training.zerodce import CurveTask

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "zerodce"
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
    steps=4,
    learning_rate=1e-3,
    warmup=2,
    schedule="cosine",
    precision="float32",
    average=0.9,
    clip=1.0,
    losses=LossWeights(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    synthesis=Synthesis(),
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
    task = CurveTask(replace(recipes.RECIPES[method]["official"], precision="float32"), total_steps=10)
    task.network.load_state_dict(published_layout(method, arrays, "init."))
    x = arrays["batch_u8"].permute(0, 3, 1, 2).float() / 255
    columns = ("total", "map_smoothness", "spatial_consistency", "colour_constancy", "exposure", "gradient")
    for expected in arrays["log"]:
        values = task.step([Batch(x, x)])
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
        assert (recipe.padding, recipe.schedule, recipe.average, recipe.synthesis) == (
            "zeros",
            "constant",
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
        task.step([batch])
        rates.append(task.optimizer.param_groups[0]["lr"])
        scales.append(task.network.scale)
    cosine = [0.5 * (1 + np.cos(np.pi * step / 4)) for step in range(4)]
    warm = [1 / 3, 2 / 3, 1, 1]
    assert rates == pytest.approx([1e-3 * a * b for a, b in zip(cosine, warm, strict=True)])
    assert scales == [1, 2, 1, 2]


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="'retinex'"):
        CurveTask(replace(TINY, method="retinex"), 1)


@pytest.fixture
def photos(tmp_path):
    return attributed_photographs(tmp_path / "photos")


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
    names = [weights.stem, weights.with_suffix(".md").name, weights.name]
    assert sorted(path.name for path in weights.parent.iterdir()) == names
    assert (tmp_path / "out" / weights.stem / "report.html").exists()


def same_recipe(recipe, stored):
    """A file's recipe is the one here; fields younger than the file have the values that mean nothing."""
    assert stored.keys() <= {field.name for field in fields(recipe)}
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.name == "vgg":
            continue  # a file of the user's
        if field.name not in stored:
            assert value == field.default, field.name
        elif is_dataclass(value):
            same_recipe(value, stored[field.name])
        else:
            assert json.loads(json.dumps(value)) == stored[field.name], field.name


@pytest.mark.parametrize(
    ("method", "variant"), [(method, name) for method in recipes.SHIPPED for name in recipes.SHIPPED[method]]
)
def test_shipped_weights_are_of_the_recipe_here_and_have_a_card(method, variant):
    file = next(entry.file for entry in fastllie.info(method).weights if entry.name == variant)
    weights = Path(fastllie.__file__).parent / "weights" / file
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    same_recipe(recipes.SHIPPED[method][variant], json.loads(metadata["recipe"]))
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
    assert not (tmp_path / "out").exists()


def test_card_refuses_foreign_weights(tmp_path, photos, capsys):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert card.main([str(tmp_path / "foreign.safetensors"), "--photos", str(photos)]) == 2
    assert "was not written by" in capsys.readouterr().err
