"""`fastllie.train` and `fastllie.finetune`, in Python and on the command line, and what recipes accept."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers import refused, write_weights
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import fastllie
from fastllie import cli
from fastllie.training import session
from fastllie.training.recipes.config import read_config

QUICK = {"epochs": 2, "every": 2, "log_every": 2}
KILLS = 3
SMALL = {"zerodce": {"size": 32}, "zerodce++": {"size": 32}, "sci": {}}


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
    logged = [json.loads(line) for line in result.log.read_text().splitlines()]
    assert [entry["step"] for entry in logged] == list(range(2, result.steps + 1, 2))
    assert lines[-1].startswith(f"step {result.steps}/{result.steps}  total ")
    assert result.best is None
    assert "</html>" in result.report.read_text()
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
    assert [line.split("  ")[0] for line in lines] == [
        "reading photographs 0/3",
        f"{photos} holds 1 .txt beside photographs; skipped",
        "goes on from step 2",
        "step 3/6",
        "step 4/6",
        "step 6/6",
    ]
    assert_same(again.weights, whole.weights)
    # a finished run is left as it is, another recipe has to go elsewhere
    assert fastllie.train("sci", photos, output=tmp_path / "run", **QUICK).steps == 6
    with refused(ValueError, "the run in", "its state was made with learning_rate"):
        fastllie.train("sci", photos, output=tmp_path / "run", learning_rate=0.1, **QUICK)
    with refused(ValueError, "was made with seed 0, not 1"):
        fastllie.train("sci", photos, output=tmp_path / "run", seed=1, **QUICK)
    whole = photos / "a.png"
    Image.open(whole).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(whole)
    with refused(ValueError, "was made with other photographs"):
        fastllie.train("sci", photos, output=tmp_path / "run", **QUICK)


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
    (tmp_path / "empty").mkdir()
    with refused(ValueError, "empty holds no images; wanted files that end in .jpg"):
        fastllie.train("sci", tmp_path / "empty", output=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_files_that_cannot_be_used_are_told_and_left_out(photos, tmp_path):
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:200])
    Image.new("L", (30, 30), 40).save(photos / "grey.png")
    lines = []
    result = fastllie.train("sci", photos, output=tmp_path / "run", progress=lines.append, **QUICK)
    told = "\n".join(lines)
    assert "broken.png is damaged" in told
    assert "grey.png is grey" in told
    assert "broken.png is damaged" in (tmp_path / "run" / "log.txt").read_text()
    assert json.loads(safe_open(result.weights, "pt").metadata()["run"])["photographs"] == 4


def test_a_run_inside_its_photographs_is_not_trained_on(photos, tmp_path):
    settings = {"output": photos / "run", "steps": 3, "every": 2}
    first = fastllie.train("sci", photos, **settings)
    assert list((photos / "run" / "pictures").iterdir())
    # its pictures would be other photographs, and refuse to go on
    assert fastllie.train("sci", photos, **settings).steps == first.steps


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
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": None}, ValueError, "a run needs at least one step, got steps=None, epochs=None"),
        ({"every": 0}, ValueError, "every must be a positive number of steps, got 0"),
        ({"device": "gpu"}, ValueError, "unknown device 'gpu'"),
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


# --- validation


def test_the_best_weights_are_those_that_score_best_on_photographs_held_out(photos, tmp_path):
    lines = []
    settings = {"size": 32, "steps": 6, "every": 2, "log_every": 2, "learning_rate": 1e-3}
    result = fastllie.train(
        "zerodce", photos, output=tmp_path / "run", validation=0.34, progress=lines.append, **settings
    )
    scores = [json.loads(line) for line in (tmp_path / "run" / "validation.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in scores] == [2, 4, 6]
    best = max(scores, key=lambda entry: -entry["scores"]["total"])
    with safe_open(result.best, "pt") as file:
        assert json.loads(file.metadata()["run"])["steps"] == best["step"]
        assert json.loads(file.metadata()["run"])["photographs"] == 2
    assert any("best so far" in line for line in lines)
    pictures = sorted((tmp_path / "run" / "pictures").iterdir())
    assert pictures
    assert Image.open(pictures[-1]).width > 200


def test_pairs_are_scored_against_their_targets(photos, tmp_path):
    bright = tmp_path / "bright"
    bright.mkdir()
    for path in photos.glob("*.*"):
        if path.suffix != ".txt":
            with Image.open(path) as image:
                image.point(lambda value: min(255, 2 * value)).save(bright / f"{path.stem}.png")
    losses = {"map_smoothness": 0, "spatial_consistency": 0, "colour_constancy": 0, "exposure": 0}
    result = fastllie.train(
        "zerodce",
        ([photos / "a.png", photos / "b.jpg"], [bright / "a.png", bright / "b.png"]),
        output=tmp_path / "run",
        validation=([photos / "a.png"], [bright / "a.png"]),
        steps=60,
        size=24,
        learning_rate=2e-3,
        clip=None,
        losses={**losses, "reconstruction": 1},
        every=20,
    )
    scores = [json.loads(line) for line in (tmp_path / "run" / "validation.jsonl").read_text().splitlines()]
    assert scores[-1]["scores"]["PSNR"] > scores[0]["scores"]["PSNR"]
    assert 0 < scores[-1]["scores"]["SSIM"] <= 1
    assert result.best.exists()


def test_photographs_that_a_method_cannot_use_are_refused(photos, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (40, 30), (90, 120, 150)).save(other / "day.png")
    with refused(ValueError, "zerodce has no use for photographs of normal light"):
        fastllie.train("zerodce", (photos, other), output=tmp_path / "run", size=32, **QUICK)
    command = ["train", "sci", str(photos), "--target", str(other), "-o", str(tmp_path / "run")]
    assert cli.main(command) == 2


@pytest.mark.parametrize("share", [1.0, -0.1])
def test_a_share_is_less_than_all(photos, tmp_path, share):
    with refused(ValueError, "validation must be a share in [0, 1), or photographs"):
        fastllie.train("sci", photos, output=tmp_path / "run", validation=share)


# --- files of settings


def test_a_run_can_be_made_again_from_its_config(photos, tmp_path, capsys):
    first = fastllie.train("sci", photos, output=tmp_path / "first", losses={"exposure": 2}, seed=3, **QUICK)
    config = str(tmp_path / "first" / "config.toml")
    assert cli.main(["train", "--config", config, "-o", str(tmp_path / "again")]) == 0
    assert_same(first.weights, tmp_path / "again" / "weights.safetensors")
    kept = [(tmp_path / name / "config.toml").read_text() for name in ("first", "again")]
    assert kept[0] == kept[1]
    flags = ["--steps", "1", "--losses.fidelity", "0", "--seed", "4"]
    assert cli.main(["train", "--config", config, "-o", str(tmp_path / "other"), *flags]) == 0
    found = read_config(tmp_path / "other" / "config.toml")
    assert (found["steps"], found["epochs"], found["seed"]) == (1, None, 4)
    assert (found["losses"]["fidelity"], found["losses"]["exposure"]) == (0, 2)
    capsys.readouterr()
    assert cli.main(["train", "-o", str(tmp_path / "none")]) == 2
    assert "METHOD is missing" in capsys.readouterr().err
    (tmp_path / "wrong.toml").write_text("learning_rte = 1")
    command = ["train", "sci", str(photos), "-o", str(tmp_path / "none")]
    assert cli.main([*command, "--config", str(tmp_path / "wrong.toml")]) == 2
    assert "did you mean 'learning_rate'" in capsys.readouterr().err


def test_a_config_of_finetune_is_finetuned(photos, tmp_path, capsys):
    weights = write_weights(tmp_path / "w.safetensors", "sci", padding="reflect")
    first = fastllie.finetune("sci", photos, weights=weights, output=tmp_path / "first", **QUICK)
    config = str(tmp_path / "first" / "config.toml")
    assert cli.main(["finetune", "--config", config, "-o", str(tmp_path / "again")]) == 0
    assert_same(first.weights, tmp_path / "again" / "weights.safetensors")
    assert cli.main(["train", "--config", config, "-o", str(tmp_path / "none")]) == 2
    assert "is of a finetune run" in capsys.readouterr().err


# --- stopped from outside


COMMAND = [sys.executable, "-m", "fastllie", "train"]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


def wait_for(path, process, seconds=120):
    limit = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "the run ended early"
        assert time.monotonic() < limit, f"{path} did not come"
        time.sleep(0.01)


def test_a_run_killed_at_random_moments_resumes_each_time(photos, tmp_path):
    settings = ["--size", "32", "--batch", "2", "--every", "3", "--log-every", "1", "--precision", "float32"]
    command = [*COMMAND, "zerodce", str(photos), *settings, "--steps", "60", "--validation", "0.34"]
    whole, run_ = tmp_path / "whole", tmp_path / "run"
    subprocess.run([*command, "-o", str(whole)], check=True, env=environment(), capture_output=True)
    random = np.random.default_rng(0)
    reached = []
    for _ in range(KILLS):
        before = (run_ / "state.ckpt").stat().st_mtime_ns if (run_ / "state.ckpt").exists() else 0
        process = subprocess.Popen(
            [*command, "-o", str(run_)],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not (run_ / "state.ckpt").exists() or (run_ / "state.ckpt").stat().st_mtime_ns == before:
            assert process.poll() in (None, 0)
            if process.poll() == 0:
                break
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.05))
        process.kill()
        process.wait()
        reached.append(torch.load(run_ / "state.ckpt", weights_only=True)["task"]["steps_done"])
    assert reached == sorted(reached)
    assert reached[0] < 60
    subprocess.run([*command, "-o", str(run_)], check=True, env=environment(), capture_output=True)
    assert_same(whole / "weights.safetensors", run_ / "weights.safetensors")
    assert_same(whole / "best.safetensors", run_ / "best.safetensors")
    logs = [[json.loads(line) for line in (d / "log.jsonl").read_text().splitlines()] for d in (whole, run_)]
    assert [entry["step"] for entry in logs[1]] == list(range(1, 61))
    assert [entry["values"] for entry in logs[0]] == [entry["values"] for entry in logs[1]]
    assert not list(run_.rglob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_a_checkpoint(photos, tmp_path, number):
    command = [
        *COMMAND,
        "sci",
        str(photos),
        "-o",
        str(tmp_path / "run"),
        "--steps",
        "100000",
        "--log-every",
        "1",
    ]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / "run" / "log.jsonl", process)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name} after step" in told
    assert "Traceback" not in told
    assert torch.load(tmp_path / "run" / "state.ckpt", weights_only=True)["task"]["steps_done"] >= 1
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_two_processes_of_torchrun_equal_one_that_takes_two_parts(photos, tmp_path):
    settings = ["--size", "32", "--batch", "2", "--steps", "4", "--log-every", "1", "--precision", "float32"]
    command = ["-m", "fastllie", "train", "zerodce", str(photos), *settings]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = subprocess.run(
        [*launch, *command, "-o", str(tmp_path / "two")],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("wrote ") == 1
    alone = [sys.executable, *command, "--accumulate", "2", "-o", str(tmp_path / "one")]
    subprocess.run(alone, check=True, env=environment(), capture_output=True)
    assert_same(tmp_path / "two" / "weights.safetensors", tmp_path / "one" / "weights.safetensors")
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("two", "one")]
    two, one = ([json.loads(line)["values"] for line in log] for log in logs)
    assert two == one


def test_memory_stays_flat(photos, tmp_path):
    resource = pytest.importorskip("resource")
    peaks = []

    def look(line):
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    fastllie.train(
        "zerodce",
        photos,
        output=tmp_path / "run",
        steps=2000,
        size=16,
        batch=1,
        every=500,
        log_every=100,
        precision="float32",
        progress=look,
    )
    # kilobytes; the first lines come before the allocator has found its size
    assert peaks[-1] - peaks[4] < 8 * 1024


# --- the command line


def test_train_and_finetune_on_the_command_line(photos, tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--epochs", "1", "--losses.exposure=2", "--log-every", "1", "--exposure-level", "0.5"]
    assert cli.main(["train", "sci", str(photos), "-o", str(out), *flags]) == 0
    written = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in written[:5]] == [
        "reading photographs 0/3",
        f"{photos} holds 1 .txt beside photographs; skipped",
        "step 1/3",
        "step 2/3",
        "step 3/3",
    ]
    assert "exposure" in written[2]
    assert written[-1].strip() == str(out / "report.html")
    assert f"wrote {out / 'weights.safetensors'}" in written
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
    assert "--learning-rte (did you mean --learning-rate" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_a_failure(photos, tmp_path, capsys, monkeypatch):
    def explode(*_, **__):
        raise RuntimeError("step 3: a loss is not finite: {'total': nan}")

    monkeypatch.setattr(session, "fit", explode)
    assert cli.main(["train", "sci", str(photos), "-o", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == "fastllie train: step 3: a loss is not finite: {'total': nan}\n"
