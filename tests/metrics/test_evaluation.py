"""`fastllie.evaluate` and the command: folders, methods, what is missing, what is written."""

import csv
import json

import numpy as np
import pytest
import torch
from helpers import refused, write_weights
from PIL import Image
from safetensors.torch import save_file

import fastllie
from fastllie import cli, metrics
from fastllie.images.reading import read
from fastllie.metrics import METRICS
from fastllie.training.data import collect

FAST = ["psnr", "ssim", "rise"]


def shades(seed, size=(30, 22)):
    """A coloured picture, uint8 `[H, W, 3]`."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(10, 120, (5, 7, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """low/ and high/ in the working directory: the same three names, of other suffixes, one in a folder."""
    monkeypatch.chdir(tmp_path)
    for place in ("low/deep", "high/deep"):
        (tmp_path / place).mkdir(parents=True)
    for seed, name in enumerate(("a", "b", "deep/c")):
        Image.fromarray(shades(seed)).save(f"low/{name}.png")
        Image.fromarray(np.clip(shades(seed) * 1.8, 0, 255).astype(np.uint8)).save(f"high/{name}.bmp")
    (tmp_path / "low" / "notes.txt").write_text("no image")
    return tmp_path


def mean_of(name, pairs):
    return np.mean([float(METRICS[name](x, y)) for x, y in pairs])


def test_a_folder_against_references(folders):
    result = fastllie.evaluate("low", "high", metrics=FAST[:2])
    assert isinstance(result, fastllie.Evaluation)
    assert [(row.method, row.image) for row in result.rows] == [("low", "a"), ("low", "b"), ("low", "deep/c")]
    assert (result.unmatched, result.failures) == ((), ())
    pairs = [(f"low/{name}.png", f"high/{name}.bmp") for name in ("a", "b", "deep/c")]
    for name in FAST[:2]:
        assert result.means["low"][name] == pytest.approx(mean_of(name, pairs), rel=1e-12)
    assert result.counts == {"low": {"psnr": 3, "ssim": 3}}
    assert result.labels["ssim"] == METRICS["ssim"].protocol


def test_the_usual_metrics_are_those_that_the_images_allow(folders):
    def measured(*given, **settings):
        return [metric.name for metric in fastllie.evaluate(*given, **settings).metrics]

    assert measured("low/a.png") == ["niqe", "de", "eme"]
    assert measured("low/a.png", "high/a.bmp")[:2] == ["psnr", "ssim"]
    assert "rise" in measured("high/a.bmp", data="low/a.png")
    both = measured("high/a.bmp", "low/a.png", data="low/a.png")
    assert both == [name for name, metric in METRICS.items() if metric.usual and name != "lpips"]


def test_two_files_of_any_name(folders):
    result = fastllie.evaluate("low/a.png", "high/b.bmp", metrics=["psnr"])
    assert result.means == {"low/a.png": {"psnr": float(metrics.psnr(shades(0), "high/b.bmp"))}}


def test_methods_are_scored_as_a_file_would_hold_their_results(folders):
    names = ["zerodce", "sci.mild"]
    result = fastllie.evaluate(method=names, data="low", reference="high", metrics=FAST, device="cpu")
    assert list(result.means) == ["input", *names]
    assert [row.method for row in result.rows] == ["input", *names] * 3
    for name, settings in (
        ("zerodce", {"method": "zerodce"}),
        ("sci.mild", {"method": "sci", "weights": "mild"}),
    ):
        outputs = {}
        for stem in ("a", "b", "deep/c"):
            x = torch.from_numpy(read(f"low/{stem}.png").values).permute(2, 0, 1).float()[None] / 255
            y = fastllie.enhance(x, **settings)
            outputs[stem] = ((y * 255).double() + 0.5).floor() / 255
        for metric in FAST:
            other = "low/{}.png" if metric == "rise" else "high/{}.bmp"
            want = mean_of(metric, [(y, other.format(stem)) for stem, y in outputs.items()])
            assert result.means[name][metric] == pytest.approx(want, abs=2e-3), (name, metric)
    assert result.means["input"]["rise"] == 0


def test_enhancing_first_gives_the_same_scores(folders):
    cli.main(["enhance", "low", "-o", "made", "--method", "zerodce", "--device", "cpu"])
    given = fastllie.evaluate("made", "high", data="low", metrics=FAST)
    at_once = fastllie.evaluate(method="zerodce", data="low", reference="high", metrics=FAST, device="cpu")
    for name in FAST:
        assert given.means["made"][name] == pytest.approx(at_once.means["zerodce"][name], abs=2e-3)


def test_callables_weights_and_options(folders):
    half = fastllie.evaluate(method={"half": lambda x: x / 2}, data="low", metrics=["rise"])
    dark = [np.floor(shades(seed) / 2 + 0.5) / 255 for seed in range(3)]
    want = np.mean([d.mean() - shades(seed).mean() / 255 for seed, d in enumerate(dark)])
    assert half.means["half"]["rise"] == pytest.approx(want, abs=1e-9)
    path = write_weights(folders / "own.safetensors", "zerodce++")
    result = fastllie.evaluate(method="zerodce++", data="low", weights=path, metrics=["rise"], scale=2)
    name = "zerodce++ (own.safetensors)"
    assert list(result.means) == ["input", name]
    made = [fastllie.enhance(shades(seed), "zerodce++", weights=path, scale=2) for seed in range(3)]
    want = np.mean([float(metrics.rise(y, shades(seed))) for seed, y in enumerate(made)])
    assert result.means[name]["rise"] == pytest.approx(want, abs=1e-4)


def test_a_callable_that_makes_nonsense_is_named(folders):
    made = {
        "small": lambda x: x[..., ::2, ::2],
        "nan": lambda x: x * float("nan"),
        "good": lambda x: x,
        "breaks": lambda x: x.view(7),
    }
    result = fastllie.evaluate(method=made, data="low", metrics=["de"])
    assert list(result.means) == ["input", "good"]
    assert len(result.failures) == 9
    assert result.failures[0].startswith("a: small: made (1, 3, 11, 15) of a batch (1, 3, 22, 30)")
    assert result.failures[1] == "a: nan: made NaN or infinite values"
    assert result.failures[2].startswith("a: breaks: ")


def test_files_without_a_partner_are_named_and_left_out(folders):
    (folders / "high" / "b.bmp").rename(folders / "high" / "other.bmp")
    result = fastllie.evaluate("low", "high", metrics=["psnr"])
    assert [row.image for row in result.rows] == ["a", "deep/c"]
    assert sorted(result.unmatched) == ["high/other.bmp: no output in low", "low/b.png: no reference in high"]


def test_failures_are_named_and_the_others_done(folders):
    (folders / "low" / "a.png").write_bytes(b"broken")
    Image.fromarray(shades(1, (30, 23))).save("low/b.png")
    result = fastllie.evaluate("low", "high", metrics=["psnr", "niqe"])
    assert [row.image for row in result.rows] == ["deep/c"]
    assert [failure.split(":")[0] for failure in result.failures] == ["a", "b", "deep/c"]
    assert "low/b.png has 30x23, high/b.bmp has 30x22" in result.failures[1]
    # too small for NIQE: the other metric is there
    assert "niqe" in result.failures[2]
    assert "96x96" in result.failures[2]
    assert list(result.means["low"]) == ["psnr"]
    assert result.counts["low"] == {"psnr": 1, "niqe": 0}
    assert "0 to 1" in result.table()


def test_wrong_calls(folders):
    with refused(ValueError, "either outputs or a method"):
        fastllie.evaluate()
    with refused(ValueError, "either outputs or a method"):
        fastllie.evaluate("low", method="zerodce")
    with refused(ValueError, "wants data"):
        fastllie.evaluate(method="zerodce")
    with refused(ValueError, "weights, scale: these go with a method"):
        fastllie.evaluate("low", weights="x", scale=2)
    with refused(ValueError, "'psnr' compares with the reference"):
        fastllie.evaluate("low", metrics=["psnr"])
    with refused(ValueError, "unknown metric 'pnsr'", "psnr"):
        fastllie.evaluate("low", metrics=["pnsr"])
    with refused(ValueError, "unknown method 'zero'"):
        fastllie.evaluate(method="zero", data="low")
    with refused(ValueError, "unknown weights of sci 'medum'"):
        fastllie.evaluate(method="sci.medum", data="low")
    with refused(ValueError, "weights go with one method"):
        fastllie.evaluate(method=["zerodce", "sci"], weights="x.pth", data="low")
    with refused(ValueError, "names weights already"):
        fastllie.evaluate(method="sci.mild", weights="strong", data="low")
    with refused(ValueError, "'sci' was given twice"):
        fastllie.evaluate(method=["sci", "sci"], data="low")
    with refused(ValueError, "may not be called 'input'"):
        fastllie.evaluate(method={"input": lambda x: x}, data="low")
    with refused(ValueError, "no methods were given"):
        fastllie.evaluate(method=[], data="low")
    with refused(TypeError, "scale"):
        fastllie.evaluate(method="zerodce", data="low", scale=3)
    with refused(FileNotFoundError, "'nowhere'"):
        fastllie.evaluate("nowhere", "high")
    with refused(ValueError, "'low' is a folder", "'high/a.bmp' is a file"):
        fastllie.evaluate("low", "high/a.bmp")
    with refused(ValueError, "device 'cuda:99'"):
        fastllie.evaluate("low", device="cuda:99")
    (folders / "empty").mkdir()
    with refused(ValueError, "'empty' holds no images"):
        fastllie.evaluate("empty", "high")
    with refused(ValueError, "no image has the same name", "'low/deep'", "'high'"):
        fastllie.evaluate("low/deep", "high", metrics=["psnr"])
    Image.fromarray(shades(0)).save("low/a.jpg")
    with refused(ValueError, "low/a.jpg", "low/a.png", "same name"):
        fastllie.evaluate("low", "high")


def test_tables_and_files_carry_the_labels(folders):
    result = fastllie.evaluate("low", "low", metrics=["psnr", "ssim"])
    text = result.table().splitlines()
    assert text[0].split() == ["method", "images", "psnr", "ssim"]
    assert text[1].split() == ["low", "3", "inf", "1.0000"]
    assert text[-1].split(maxsplit=1) == ["ssim", METRICS["ssim"].protocol]
    result.write_csv("scores.csv")
    with open("scores.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert lines[0] == [
        "method",
        "image",
        f"psnr: {METRICS['psnr'].protocol}",
        f"ssim: {METRICS['ssim'].protocol}",
    ]
    assert lines[1] == ["low", "a", "inf", "1.0"]
    assert [line[1] for line in lines[1:]] == ["a", "b", "deep/c", "mean"]
    result.write_json("scores.json")
    content = json.loads((folders / "scores.json").read_text(encoding="utf-8"))
    assert content["labels"] == result.labels
    assert content["means"] == {"low": {"psnr": "inf", "ssim": 1.0}}
    assert content["counts"] == {"low": {"psnr": 3, "ssim": 3}}
    assert content["images"][2] == {
        "method": "low",
        "image": "deep/c",
        "values": {"psnr": "inf", "ssim": 1.0},
    }
    assert not list(folders.glob(".*.part"))


def test_sixteen_bits_keep_their_depth(folders):
    levels = np.arange(22 * 30, dtype=np.uint16).reshape(22, 30) * 40
    Image.fromarray(levels).save("deep.png")
    Image.fromarray(levels + np.uint16(16)).save("other.png")
    result = fastllie.evaluate("deep.png", "other.png", metrics=["psnr"])
    assert result.means["deep.png"]["psnr"] == pytest.approx(20 * np.log10(65535 / 16), abs=1e-6)


# --- the command


def test_command_on_two_folders(folders, capsys):
    assert cli.main(["evaluate", "low", "high", "--metrics", "psnr,ssim"]) == 0
    out, err = capsys.readouterr()
    assert out == fastllie.evaluate("low", "high", metrics=["psnr", "ssim"]).table() + "\n"
    assert err == "fastllie evaluate: low: left alone: 1 .txt\n"


def test_command_on_methods(folders, capsys):
    path = str(write_weights(folders / "own.safetensors", "zerodce++"))
    arguments = [
        "evaluate",
        "--method",
        "zerodce++",
        "--weights",
        path,
        "--option",
        "scale=2",
        "--data",
        "low",
        "high",
    ]
    written = ["--metrics", "psnr,rise", "--csv", "s.csv", "--json", "s.json", "--device", "cpu"]
    assert cli.main([*arguments, *written]) == 0
    want = fastllie.evaluate(
        method="zerodce++", weights=path, data="low", reference="high", metrics=["psnr", "rise"], scale=2
    )
    assert capsys.readouterr().out == want.table() + "\n"
    assert json.loads((folders / "s.json").read_text(encoding="utf-8"))["means"] == want.means
    assert len((folders / "s.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * 3 + 2
    assert (
        cli.main(["evaluate", "--method", "sci.mild", "--method", "sci", "--data", "low", "--metrics", "de"])
        == 0
    )
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:4]] == [
        "method",
        "input",
        "sci.mild",
        "sci",
    ]


def test_command_with_inputs_beside_results(folders, capsys):
    assert cli.main(["evaluate", "high", "--data", "low", "--metrics", "rise,de"]) == 0
    assert (
        capsys.readouterr().out
        == fastllie.evaluate("high", data="low", metrics=["rise", "de"]).table() + "\n"
    )


def test_command_says_what_failed(folders, capsys):
    (folders / "low" / "a.png").write_bytes(b"")
    (folders / "high" / "b.bmp").unlink()
    assert cli.main(["evaluate", "low", "high", "--metrics", "psnr"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[:2] == ["low", "1"]
    lines = err.splitlines()
    assert lines[0] == "fastllie evaluate: low/b.png: no reference in high"
    assert "low/a.png" in lines[1]
    assert lines[2:] == [
        "fastllie evaluate: low: left alone: 1 .txt",
        "fastllie evaluate: 1 failures, 1 images without a partner",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "wanted PRED [GT], or --method"),
        (["--data", "low"], "wanted PRED [GT], or --method"),
        (["low", "high", "low"], "wanted one folder of references, got high, low"),
        (["--method", "sci", "high", "--data", "low", "high"], "wanted one folder of references"),
        (["--method", "sci"], "wants data"),
        (["low", "high", "--metrics", "nonsense"], "unknown metric 'nonsense'"),
        (["low", "high", "--metrics", "lpips"], "--lpips-weights"),
        (["low", "high", "--niqe-model", "no.npz"], "no.npz"),
        (["low", "high", "--lpips-weights", "x.pth", "y.pth"], "x.pth"),
        (["low", "nowhere"], "'nowhere'"),
        (["low", "high", "--weights", "x.pth"], "these go with a method"),
        (["low", "high", "--csv", "gone/s.csv"], "cannot write 'gone/s.csv'"),
        (["low", "high", "--json", "low"], "cannot write 'low'"),
    ],
)
def test_wrong_command_lines(folders, capsys, arguments, message):
    assert cli.main(["evaluate", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_command_measures_lpips_where_it_has_weights(folders, capsys):
    shapes = {
        0: (64, 3, 11, 11),
        3: (192, 64, 5, 5),
        6: (384, 192, 3, 3),
        8: (256, 384, 3, 3),
        10: (256, 256, 3, 3),
    }
    features = {f"features.{layer}.weight": torch.randn(shape) * 0.02 for layer, shape in shapes.items()}
    features |= {f"features.{layer}.bias": torch.zeros(shape[0]) for layer, shape in shapes.items()}
    linear = {f"lin{i}.model.1.weight": torch.rand(1, s[0], 1, 1) for i, s in enumerate(shapes.values())}
    save_file(features, "features.safetensors")
    save_file(linear, "linear.safetensors")
    Image.fromarray(shades(0, (64, 48))).save("x.png")
    Image.fromarray(shades(1, (64, 48))).save("y.png")
    weights = ("features.safetensors", "linear.safetensors")
    assert cli.main(["evaluate", "x.png", "y.png", "--metrics", "lpips", "--lpips-weights", *weights]) == 0
    want = float(metrics.lpips("x.png", "y.png", weights=weights))
    assert f"{want:.4f}" in capsys.readouterr().out
    assert want > 0


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (("low00690.png", "normal00690.jpg", "low00690.png"), None),
        (("a_input.png", "a-gt.png", "a_input.png"), None),
        (("below/low_1.png", "below/high_1.png", "below/low_1.png"), None),
        (("00001_00_0.1s.png", "00001_00_10s.png", "run-00001.png"), r"\d{5}"),
        (("x7-dark.png", "bright 7.png", "7 (1).png"), r"^\D*(\d)"),
    ],
)
def test_images_are_paired_as_training_pairs_them(tmp_path, names, rule):
    folders = [tmp_path / side for side in ("low", "normal", "results")]
    for folder, name in zip(folders, names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 16), (10, 20, 30)).save(folder / name)
    low, normal, results = folders
    found = fastllie.evaluate(results, normal, data=low, names=rule, metrics=["psnr", "rise"])
    assert [row.image for row in found.rows] == [names[2].rsplit(".", 1)[0]]
    assert not found.unmatched
    if rule is None:
        assert collect((low, normal)).layout == "paired"


def test_rules_for_names_that_pair_nothing_or_too_much_are_named(tmp_path):
    for name in ("a/x1.png", "a/y1.png", "b/z1.png", "b/none.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (24, 16)).save(tmp_path / name)
    with refused(ValueError, "x1.png and", "y1.png have the same name"):
        fastllie.evaluate(tmp_path / "a", tmp_path / "b", names=r"\d")
    with refused(ValueError, "no image has the same name", "--names"):
        fastllie.evaluate(tmp_path / "a", tmp_path / "b")
    with refused(ValueError, "the rule for names '(' is no regular expression"):
        fastllie.evaluate(tmp_path / "a", tmp_path / "b", names="(")
    (tmp_path / "a/y1.png").unlink()
    found = fastllie.evaluate(tmp_path / "a", tmp_path / "b", names=r"\d", metrics=["psnr"])
    assert found.unmatched == (f"{tmp_path / 'b/none.png'}: the rule for names finds nothing in its name",)
