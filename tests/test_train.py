"""`fastllie.train` and `fastllie.finetune`, in Python and on the command line, and what recipes accept."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import refused, write_weights
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import fastllie
from fastllie import cli
from fastllie.training import data, recipes, run
from fastllie.training.overrides import field_names, nested, override, value_of
from fastllie.training.recipes import SCIRecipe, Synthesis

QUICK = {"epochs": 2, "every": 2}
SMALL = {"zerodce": {"size": 32}, "zerodce++": {"size": 32}, "sci": {}}


@pytest.fixture(autouse=True)
def one_thread():
    """Such small pictures are not worth a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def photos(tmp_path):
    """Three dark photographs of several sizes, one of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, size in (("a.png", (40, 30)), ("b.jpg", (31, 47)), ("below/c.PNG", (36, 36))):
        coarse = random.integers(0, 90, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def assert_same(first, second):
    """Two files of weights hold the same bits."""
    first, second = load_file(first), load_file(second)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


# --- train


@pytest.mark.parametrize(
    ("method", "recipe"),
    [("sci", "official"), ("sci", "released"), ("zerodce", "official"), ("zerodce++", "official")],
)
def test_a_published_recipe_makes_weights_that_enhance(photos, tmp_path, method, recipe):
    before = torch.get_rng_state()
    lines = []
    result = fastllie.train(
        method,
        photos,
        output=tmp_path / "run",
        recipe=recipe,
        progress=lines.append,
        **QUICK,
        **SMALL[method],
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert result.weights == tmp_path / "run" / "weights.safetensors"
    assert result.steps == (6 if method == "sci" else 2)
    assert result.seconds > 0
    assert result.log.read_text().splitlines() == lines
    assert lines[-1].startswith(f"step {result.steps}/{result.steps}  total ")
    image = np.full((20, 24, 3), 30, np.uint8)
    assert fastllie.enhance(image, method, weights=result.weights).shape == image.shape
    with safe_open(result.weights, "pt") as file:
        metadata = file.metadata()
    assert metadata["method"] == method
    assert json.loads(metadata["recipe"])["epochs"] == 2
    assert json.loads(metadata["run"])["photographs"] == 3
    assert fastllie.load(method, result.weights).padding == "zeros"


def test_a_run_is_what_its_seed_and_recipe_say(photos, tmp_path):
    runs = {
        name: load_file(fastllie.train("sci", photos, output=tmp_path / name, **QUICK, **settings).weights)
        for name, settings in {
            "one": {},
            "again": {},
            "seed": {"seed": 1},
            "released": {"recipe": "released"},
            "list": {"recipe": "official"},
        }.items()
    }
    key = "enhance.out_conv.0.weight"
    assert torch.equal(runs["one"][key], runs["again"][key])
    assert torch.equal(runs["one"][key], runs["list"][key])
    assert not torch.equal(runs["one"][key], runs["seed"][key])
    assert not torch.equal(runs["one"][key], runs["released"][key])
    # three stages in each of six steps; frozen after the first pass
    counter = "enhance.conv.1.num_batches_tracked"
    assert runs["one"][counter] == 18
    assert runs["released"][counter] == 9


def test_a_list_of_files_is_as_good_as_a_folder(photos, tmp_path):
    files = [str(photos / "a.png"), photos / "b.jpg", photos / "below" / "c.PNG"]
    listed = fastllie.train("sci", files, output=tmp_path / "list", **QUICK)
    whole = fastllie.train("sci", str(photos), output=tmp_path / "folder", **QUICK)
    assert_same(listed.weights, whole.weights)


@pytest.mark.parametrize(
    "options", [{"block": "ruas"}, {"block": "plain", "blocks": 2, "channels": 5}], ids=str
)
def test_other_blocks_train_and_load(photos, tmp_path, options):
    start = fastllie.train("sci", photos, output=tmp_path / "start", steps=1, **options)
    result = fastllie.train("sci", photos, output=tmp_path / "run", **QUICK, **options)
    loaded = fastllie.load("sci", result.weights)
    for name, value in options.items():
        assert getattr(loaded, name) == value
    assert json.loads(safe_open(start.weights, "pt").metadata()["run"])["steps"] == 1
    moved = load_file(start.weights)
    assert any(not torch.equal(value, moved[key]) for key, value in load_file(result.weights).items())


def test_the_exposure_loss_decides_the_brightness(photos, tmp_path):
    means = []
    for level in (0.3, 0.6):
        result = fastllie.train(
            "sci",
            photos,
            output=tmp_path / str(level),
            steps=150,
            stages=1,
            learning_rate=0.02,
            losses={"fidelity": 0, "smoothness": 0, "exposure": 10},
            exposure_level=level,
            freeze_bn_after_steps=20,
        )
        means.append(
            np.asarray(fastllie.enhance(photos / "a.png", "sci", weights=result.weights)).mean() / 255
        )
    assert means[0] == pytest.approx(0.3, abs=0.1)
    assert means[1] == pytest.approx(0.6, abs=0.1)


def test_an_interrupted_run_goes_on(photos, tmp_path, monkeypatch):
    whole = fastllie.train("sci", photos, output=tmp_path / "whole", **QUICK)

    class Enough(Exception):
        pass

    def stop(line):
        if line.startswith("step 4/"):
            raise Enough

    with pytest.raises(Enough):
        fastllie.train("sci", photos, output=tmp_path / "run", progress=stop, **QUICK)
    lines = []
    again = fastllie.train("sci", photos, output=tmp_path / "run", progress=lines.append, **QUICK)
    # the line of step 4 stopped it before its checkpoint was written
    assert [line.split("  ")[0] for line in lines] == ["step 4/6", "step 6/6"]
    assert_same(again.weights, whole.weights)
    # a finished run is left as it is, another recipe has to go elsewhere
    assert fastllie.train("sci", photos, output=tmp_path / "run", **QUICK).steps == 6
    with refused(ValueError, "the checkpoint was made with recipe"):
        fastllie.train("sci", photos, output=tmp_path / "run", learning_rate=0.1, **QUICK)


# --- finetune


def test_finetune_goes_on_from_weights(photos, tmp_path):
    weights = write_weights(tmp_path / "w.safetensors", "sci", padding="reflect", blocks=2, channels=5)
    result = fastllie.finetune("sci", photos, weights=weights, output=tmp_path / "run", **QUICK)
    network = fastllie.load("sci", result.weights)
    assert (network.blocks, network.channels, network.padding) == (2, 5, "reflect")
    before, after = load_file(weights), load_file(result.weights)
    assert before.keys() == after.keys()
    change = max((after[key] - before[key]).abs().max() for key in before if key.endswith("weight"))
    # Adam moves by the learning rate a step
    assert 0 < change < 1.5 * 6 * 5e-4
    # the block runs twice in each of six steps
    assert after["enhance.conv.1.num_batches_tracked"] == 12


def test_finetune_can_train_the_cascade(photos, tmp_path):
    trained = fastllie.train("sci", photos, output=tmp_path / "first", **QUICK).weights
    settings = {"stages": 3, "learning_rate": 1e-5, "freeze_bn_after_steps": 0, **QUICK}
    result = fastllie.finetune("sci", photos, weights=trained, output=tmp_path / "run", **settings)
    before, after = load_file(trained), load_file(result.weights)
    assert before.keys() == after.keys()
    assert not torch.equal(before["calibrate.out_conv.0.weight"], after["calibrate.out_conv.0.weight"])
    within = (before["calibrate.out_conv.0.weight"] - after["calibrate.out_conv.0.weight"]).abs().max()
    assert within < 1e-3
    # batch norm was frozen from the start
    assert torch.equal(before["enhance.conv.1.running_var"], after["enhance.conv.1.running_var"])


@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
def test_finetune_of_curves(photos, tmp_path, method):
    weights = write_weights(tmp_path / "w.safetensors", method, padding="replicate")
    result = fastllie.finetune(method, photos, weights=weights, output=tmp_path / "run", size=32, **QUICK)
    before, after = load_file(weights), load_file(result.weights)
    change = max((after[key] - before[key]).abs().max() for key in before)
    assert 0 < change < 1.5 * 2 * 1e-4
    assert fastllie.load(method, result.weights).padding == "replicate"


def test_the_weights_decide_the_network(photos, tmp_path):
    weights = write_weights(tmp_path / "w.safetensors", "sci", padding="reflect")
    with refused(ValueError, "padding is 'reflect' in the weights", "got 'zeros'"):
        fastllie.finetune("sci", photos, weights=weights, output=tmp_path / "run", padding="zeros")
    with refused(FileNotFoundError, "no such weight file"):
        fastllie.finetune("sci", photos, weights=tmp_path / "none.pt", output=tmp_path / "run")


# --- what cannot be trained


def test_bad_data_is_named(photos, tmp_path):
    def training(images):
        return fastllie.train("sci", images, output=tmp_path / "run", **QUICK)

    with refused(ValueError, "nowhere is not a folder; wanted a folder of photographs, or a list of files"):
        training(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with refused(ValueError, "empty holds no images; wanted files that end in .jpg"):
        training(tmp_path / "empty")
    with refused(ValueError, "the list holds no images"):
        training([])
    with refused(FileNotFoundError, "no such image file", "gone.png"):
        training([photos / "a.png", photos / "gone.png"])
    with refused(TypeError, "data must be a folder or a list of image files, got int"):
        training(3)
    Image.new("RGB", (2, 50)).save(photos / "thin.png")
    with refused(ValueError, "thin.png is 2x50; the smallest side must be 3 or more"):
        training(photos)
    (photos / "thin.png").write_bytes(b"no picture")
    with refused(ValueError, "thin.png cannot be read as an image"):
        training(photos)
    assert not (tmp_path / "run").exists()


def test_a_truncated_photograph_is_named_when_its_turn_comes(photos, tmp_path):
    whole = (photos / "a.png").read_bytes()
    (photos / "a.png").write_bytes(whole[: len(whole) // 2])
    with refused(ValueError, "a.png cannot be read as an image"):
        fastllie.train("sci", photos, output=tmp_path / "run", **QUICK)


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        (
            {"learning_rte": 1},
            TypeError,
            "unknown field 'learning_rte'; did you mean 'learning_rate'? there are",
        ),
        ({"losses": {"fidelty": 1}}, TypeError, "unknown field 'fidelty'; did you mean 'fidelity'?"),
        ({"losses": 3}, TypeError, "losses must be SCILossWeights, got 3"),
        ({"epochs": "many"}, TypeError, "epochs must be int or None, got 'many'"),
        ({"batch": True}, TypeError, "batch must be int, got True"),
        ({"sigma": {"a": 1}}, TypeError, "sigma must be float, got a dict"),
        ({"batch": 4}, ValueError, "whole photographs go one a batch, got batch=4: give a size to crop to"),
        ({"epochs": 0}, ValueError, "a run needs at least one step, got steps=None, epochs=0"),
        ({"block": "deep"}, ValueError, "block must be a module or one of"),
        ({"stages": 0}, ValueError, "count must be an integer >= 1, got 0"),
        ({"recipe": "offical"}, ValueError, "unknown recipe of sci 'offical'; did you mean 'official'?"),
        ({"synthesis": {}}, ValueError, "synthetic exposures need a size"),
        (
            {"freeze_bn_after": 1, "freeze_bn_after_steps": 2},
            ValueError,
            "freeze_bn_after or freeze_bn_after_st",
        ),
    ],
)
def test_recipes_refuse_what_they_do_not_know(photos, tmp_path, changes, kind, told):
    with refused(kind, told):
        fastllie.train("sci", photos, output=tmp_path / "run", **changes)


def test_unknown_methods_are_refused(photos, tmp_path):
    for call in (fastllie.train, fastllie.finetune):
        with refused(ValueError, "unknown method 'sic'; did you mean 'sci'?"):
            call("sic", photos, output=tmp_path, **({"weights": "w.pt"} if call is fastllie.finetune else {}))


# --- recipes


def test_published_numbers_of_sci():
    official, released = recipes.RECIPES["sci"]["official"], recipes.RECIPES["sci"]["released"]
    assert (official.stages, official.batch, official.epochs, official.size) == (3, 1, 1000, None)
    assert (official.learning_rate, official.weight_decay, official.clip) == (3e-4, 3e-4, 5.0)
    assert (official.losses.fidelity, official.losses.smoothness) == (1.5, 1.0)
    assert (official.color, official.norm, official.sigma) == ("memory", "pixel", 10.0)
    assert official.freeze_bn_after is None
    assert replace(official, color="rgb", norm="scalar", freeze_bn_after=1) == released
    tuning = recipes.FINETUNES["sci"]["official"]
    assert (tuning.stages, tuning.epochs, tuning.learning_rate) == (1, 100, 5e-4)
    assert (tuning.freeze_bn_after_steps, tuning.losses) == (10, official.losses)


def test_override_goes_into_parts():
    recipe = override(SCIRecipe(), {"losses": {"exposure": 3}, "learning_rate": 1, "synthesis": {"zoom": 2}})
    assert (recipe.losses.exposure, recipe.losses.fidelity) == (3.0, 1.5)
    assert isinstance(recipe.learning_rate, float)
    assert recipe.synthesis == Synthesis(zoom=2.0)
    assert override(recipe, {"synthesis": None}).synthesis is None
    assert override(Synthesis(), {"lift": [-1, -2]}).lift == (-1, -2)


def test_flags_are_the_fields():
    names = field_names()
    assert {"learning_rate", "losses.exposure", "losses.map_smoothness", "synthesis.zoom", "stages"} <= set(
        names
    )
    assert "method" not in names
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    texts = {"1e-4": 1e-4, "3": 3, "none": None, "False": False, "(-1, 2)": (-1, 2), "memory": "memory"}
    assert {text: value_of(text) for text in texts} == texts


# --- data


def test_photographs_come_whole_each_once_a_pass(photos):
    paths = data.find_images(photos)
    assert [path.name for path in paths] == ["a.png", "b.jpg", "c.PNG"]
    source = data.Photographs(paths, 1, seed=0)
    assert source.steps_per_epoch == 3
    for epoch in range(2):
        shapes = [tuple(source.batch(3 * epoch + step).x.shape) for step in range(3)]
        assert sorted(shapes) == [(1, 3, 30, 40), (1, 3, 36, 36), (1, 3, 47, 31)]
    decoded = data.decode(paths[0]).copy()
    batch = next(b for b in map(source.batch, range(3)) if b.x.shape[-2:] == (30, 40))
    assert torch.equal((batch.x[0] * 255).round().to(torch.uint8), torch.from_numpy(decoded).permute(2, 0, 1))


def test_crops_and_reductions(photos):
    paths = data.find_images(photos)
    source = data.Photographs(paths, 2, seed=0, size=34)
    assert [source.batch(step).x.shape[0] for step in range(2)] == [2, 1]
    # a.png is smaller than the crop and enlarged
    assert source.batch(0).x.shape[-2:] == (34, 34)
    assert torch.equal(source.batch(1).x, data.Photographs(paths, 2, seed=0, size=34).batch(1).x)
    assert not torch.equal(source.batch(0).x, source.batch(2).x)
    reduced = data.Photographs(paths, 1, seed=0, long_side=20)
    assert {max(reduced.batch(step).x.shape[-2:]) for step in range(3)} == {20}


# --- the command line


def test_train_and_finetune_on_the_command_line(photos, tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--epochs", "1", "--losses.exposure=2", "--every", "1", "--exposure-level", "0.5"]
    assert cli.main(["train", "sci", str(photos), "-o", str(out), *flags]) == 0
    written = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in written[:-1]] == ["step 1/3", "step 2/3", "step 3/3"]
    assert "exposure" in written[0]
    assert written[-1] == f"wrote {out / 'weights.safetensors'}"
    with safe_open(out / "weights.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
    assert (recipe["losses"]["exposure"], recipe["exposure_level"], recipe["epochs"]) == (2, 0.5, 1)

    command = ["finetune", "sci", str(photos), "--weights", str(out / "weights.safetensors"), "--steps", "2"]
    assert cli.main([*command, "-o", str(tmp_path / "tuned")]) == 0
    assert (tmp_path / "tuned" / "weights.safetensors").exists()


def test_wrong_command_lines(photos, tmp_path, capsys):
    out = str(tmp_path / "run")
    assert cli.main(["train", "sci", str(tmp_path / "none"), "-o", out]) == 2
    assert "fastllie train:" in capsys.readouterr().err
    # a field of another method's recipe
    assert cli.main(["train", "sci", str(photos), "-o", out, "--normal-init", "many"]) == 2
    assert "normal_init must be float or None, got 'many'" in capsys.readouterr().err
    assert cli.main(["train", "sci", str(photos), "-o", out, "--scales", "(1,)"]) == 2
    assert "unknown field 'scales'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "sci", str(photos), "-o", out, "--learning-rte", "1"])
    assert stopped.value.code == 2
    assert "--learning-rte" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_a_failure(photos, tmp_path, capsys, monkeypatch):
    def explode(*_, **__):
        raise RuntimeError("step 3: a loss is not finite: {'total': nan}")

    monkeypatch.setattr(run, "fit", explode)
    assert cli.main(["train", "sci", str(photos), "-o", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == "fastllie train: step 3: a loss is not finite: {'total': nan}\n"
