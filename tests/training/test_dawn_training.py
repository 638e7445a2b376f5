"""Training `dawn`: from photographs to weights, resumed, continued on one's own, and what each loss says."""

import json

import numpy as np
import pytest
import torch
from helpers import refused
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import fastllie
from fastllie.training.data.scene_source import SyntheticScenes
from fastllie.training.dawn import DawnTask
from fastllie.training.losses import scenes as losses
from fastllie.training.recipes import DawnLossWeights, DawnRecipe, Scenes
from fastllie.training.trainer import Interrupted

SMALL = {"scenes": {"size": (48, 64)}, "crop": 32, "crops": 2, "batch": 2}
RECIPE = DawnRecipe(scenes=Scenes(size=(48, 64)), crop=32, crops=2, batch=2, steps=4)


@pytest.fixture(autouse=True)
def one_thread():
    """Such small pictures are not worth a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(3):
        coarse = random.integers(60, 220, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((90, 70), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def pixels(count: int = 3) -> list[torch.Tensor]:
    random = np.random.default_rng(0)
    return [torch.from_numpy(random.integers(0, 255, (70, 90, 3), dtype=np.uint8)) for _ in range(count)]


def test_training_makes_weights_that_enhance(photos, tmp_path):
    result = fastllie.train("dawn", photos, output=tmp_path / "run", steps=3, log_every=1, **SMALL)
    assert result.steps == 3
    logged = [json.loads(line) for line in result.log.read_text().splitlines()]
    assert {"noise", "difference", "structure", "roughness"} <= logged[0]["values"].keys()
    image = np.full((20, 24, 3), 30, np.uint8)
    assert fastllie.enhance(image, "dawn", weights=result.weights).shape == image.shape
    with safe_open(result.weights, "pt") as file:
        assert json.loads(file.metadata()["recipe"])["scenes"]["size"] == [48, 64]
    again = fastllie.train("dawn", photos, output=tmp_path / "again", steps=3, **SMALL)
    other = fastllie.train("dawn", photos, output=tmp_path / "other", steps=3, seed=1, **SMALL)
    first, second, third = (load_file(run.weights) for run in (result, again, other))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not all(torch.equal(value, third[key]) for key, value in first.items())


def test_an_interrupted_run_gives_the_same_bits(photos, tmp_path, monkeypatch):
    whole = fastllie.train("dawn", photos, output=tmp_path / "whole", steps=4, every=2, **SMALL)
    step = DawnTask.step

    def stopping(task, *args):
        if task.steps_done == 3:
            raise Interrupted(2, 3)
        return step(task, *args)

    with monkeypatch.context() as patch:
        patch.setattr(DawnTask, "step", stopping)
        with pytest.raises(Interrupted):
            fastllie.train("dawn", photos, output=tmp_path / "run", steps=4, every=2, **SMALL)
    resumed = fastllie.train("dawn", photos, output=tmp_path / "run", steps=4, every=2, **SMALL)
    first, second = load_file(whole.weights), load_file(resumed.weights)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_finetuning_starts_from_the_weights(photos, tmp_path):
    start = fastllie.train("dawn", photos, output=tmp_path / "start", steps=2, **SMALL)
    settings = {"learning_rate": 1e-6, "warmup": 0, **SMALL}
    tuned = fastllie.finetune(
        "dawn", photos, weights=start.weights, output=tmp_path / "tuned", steps=2, **settings
    )
    before, after = load_file(start.weights), load_file(tuned.weights)
    moved = max(float((after[key] - value).abs().max()) for key, value in before.items())
    assert 0 < moved < 1e-5


def test_pairs_are_refused(photos, tmp_path):
    with pytest.raises(ValueError, match="scenes are made of photographs"):
        fastllie.train("dawn", (photos, photos), paired=True, output=tmp_path / "run", steps=1, **SMALL)


def test_the_denoiser_learns_from_its_own_loss_alone():
    torch.manual_seed(0)
    weights = dict.fromkeys(vars(DawnLossWeights()), 1.0)
    batch = SyntheticScenes(pixels(), RECIPE.scenes, 2, 0).batch(0)
    for name in weights:
        only = {key: float(key == name) for key in weights}
        task = DawnTask(DawnRecipe(**{**vars(RECIPE), "losses": DawnLossWeights(**only)}), 4)
        (found,) = task.losses_of(batch).values()
        found.backward()

        def learns(part: torch.nn.Module) -> bool:
            return any(value.grad is not None and value.grad.abs().max() > 0 for value in part.parameters())

        assert learns(task.network.denoiser) == (name == "noise")
        assert learns(task.network.brain) == (name != "noise")


def test_a_perfect_picture_costs_next_to_nothing():
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for name in ("noise", "structure", "overshoot", "mean", "local_contrast"):
        assert float(getattr(losses, name)(image, image)) == pytest.approx(0, abs=1e-5)
    for name in ("difference", "matched_difference", "chroma"):
        assert float(getattr(losses, name)(image, image)) == pytest.approx(1e-3, rel=0.1)
    assert float(losses.roughness(torch.ones(1, 6, 8, 8, 12))) == 0


def test_what_each_loss_sees():
    grey = torch.full((1, 3, 64, 64), 0.5)
    texture = grey + 0.1 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    # a wrong exposure is the mean's business, not the matched difference's
    assert float(losses.mean(0.8 * texture, texture)) == pytest.approx(0.1, rel=0.05)
    assert float(losses.matched_difference(0.8 * texture, texture)) < 0.01
    # a tone that drifts by 0.04 over the picture, by as much more as cells are larger; not its exposure
    drift = 0.04 * torch.linspace(-0.5, 0.5, 64).expand(1, 3, 64, 64)
    expected = 0.04 / 63 * (1 + 4 + 16 + 32)
    assert float(losses.local_contrast(grey + drift, grey)) == pytest.approx(expected, rel=0.01)
    assert float(losses.local_contrast(0.8 * (grey + drift), grey)) == pytest.approx(expected, rel=0.01)
    assert float(losses.local_contrast(0.8 * grey, grey)) == pytest.approx(0, abs=1e-6)
    with refused(ValueError, "local_contrast needs [B, C, H, W] with H, W >= 64", "(1, 3, 64, 63)"):
        losses.local_contrast(grey[..., :63], grey[..., :63])
    # a rim on flat ground, of which the pixels beside it are 2 of 63 steps; not one that input or target has
    rim = grey.clone()
    rim[..., 20] += 0.02
    assert float(losses.flatness(rim, grey, 0.2 * grey)) == pytest.approx(2 * 0.02 / 63, rel=1e-3)
    assert float(losses.flatness(0.8 * grey, grey, 0.2 * grey)) == 0
    for target, seen in ((rim, grey), (grey, rim), (texture, grey), (grey, texture)):
        assert float(losses.flatness(rim, target, seen)) < 1e-5
    # burnt where the target is not
    assert float(losses.overshoot(grey + 0.45, grey)) == pytest.approx(0.45)
    assert float(losses.overshoot(grey + 0.3, grey)) == 0
    # the same error weighs ten times more where there is hardly another
    little = losses.noise(grey + 0.01, grey) - losses.noise(grey, grey)
    much = losses.noise(grey + 0.11, grey) - losses.noise(grey + 0.1, grey)
    assert little > 10 * much
