"""`fastllie benchmark`, the record of all methods, and the page that is made of the figures."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from helpers import refused, ship_random_weights
from torch.utils._python_dispatch import TorchDispatchMode

import fastllie
from fastllie import cli
from fastllie.benchmarking import baselines, contest, machine, timing
from fastllie.benchmarking.timing import Benchmark, Case, LeftOut, Timed

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
ABOUT = {"device": "CPU X", "cpu": "CPU X", "cores": 2, "threads": 1, "backends": {"cpu": "C++"}}
ABOUT |= {"fastllie": "0", "torch": "2", "onnxruntime": None, "openvino": None, "python": "3"}
SMALL = {"sizes": ["64x48"], "rounds": 1, "seconds": 60}


@pytest.fixture(autouse=True, scope="module")
def weights(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        ship_random_weights(tmp_path_factory.mktemp("weights"), patch)
        patch.setattr(contest, "PROBE", (32, 40))
        yield


@pytest.fixture
def recorder():
    """The scripts of benchmarks/, by name."""
    if not (ROOT / "benchmarks" / "page.py").exists():
        pytest.skip("benchmarks/ is not here")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import methods
    import page

    yield {"methods": methods, "page": page}
    sys.path.remove(str(ROOT / "benchmarks"))


def case(**changes):
    rows = (
        Timed("fastllie", 10.0, 9.0, 12.0, 3, 100.0, 1.0, 1e-7, 140.0),
        Timed("PyTorch eager", 25.0, 24.0, 30.0, 3, 40.0, 2.5, 0.0, None),
    )
    left = (LeftOut("OpenVINO", "takes about 9 s a call, and has 6 s for 3"),)
    settings = {"method": "sci", "options": {}, "weights": "strong", "size": "600x400", "batch": 1}
    return Case(**{**settings, "dtype": "float32", "rows": rows, "left_out": left, **changes})


# --- taking turns, and what comes of it


def test_contenders_take_turns(monkeypatch):
    asleep = []
    monkeypatch.setattr(timing.time, "sleep", asleep.append)
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    taken = timing.interleave(calls, {"a": 1.0, "b": 1.0}, 3, CPU, rest=0.1)
    assert "".join(order) == "ababab"
    assert asleep == [0.1] * 6
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 3, "b": 3}


def test_short_calls_are_repeated_after_some_that_do_not_count(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    count = []
    taken = timing.interleave({"a": lambda: count.append(1)}, {"a": timing.RESOLVED / 4}, 2, CPU)
    assert len(count) == 2 * (4 + 4)
    # from one reading of the clock to the next is a second, of four calls
    assert taken == {"a": [0.25, 0.25]}


def test_a_row_has_the_median_the_range_and_the_ratio():
    row = timing.row_of("X", [0.4, 0.1, 0.2], 8, [0.05, 0.1, 0.3], (1e-6, 120.0))
    assert row == Timed("X", 200.0, 100.0, 400.0, 3, 40.0, 2.0, 1e-6, 120.0)
    alone = timing.row_of("X", [0.5], 1, None, None)
    assert (alone.times_ours, alone.difference, alone.decibels) == (None, None, None)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4123, "0.412"), (4.123, "4.12"), (41.23, "41.2"), (412.3, "412"), (4123.4, "4123"), (0, "0")],
)
def test_figures_have_three_digits(value, text):
    assert timing.spelled(value) == text


def test_the_table_is_aligned_and_names_who_is_missing():
    text = case(unchecked="the plain network takes about 9 s").table()
    title, head, ours, eager, left, unchecked = text.splitlines()
    assert title == "sci, 600x400, batch 1, float32"
    assert ours.split() == ["fastllie", "10.0", "9.00..12.0", "100", "1.00", "1.0e-07"]
    assert len(head) == len(ours) == len(eager)
    assert left == "  left out: OpenVINO: takes about 9 s a call, and has 6 s for 3"
    assert unchecked == "  results not compared: the plain network takes about 9 s"
    assert case(options={"scale": 4}).title.startswith("sci scale=4, 600x400, ")
    assert case(rows=()).table().splitlines()[1].startswith("  left out")


def test_the_file_holds_everything(tmp_path):
    found = Benchmark(ABOUT, (case(),), {"OpenVINO": "needs openvino"})
    found.write_json(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["machine"] == ABOUT
    assert content["absent"] == {"OpenVINO": "needs openvino"}
    (only,) = content["cases"]
    told = {"method": "sci", "options": {}, "weights": "strong", "size": "600x400", "batch": 1}
    told |= {"dtype": "float32", "rows": 0, "left_out": 0, "unchecked": None}
    assert {**only, "rows": 0, "left_out": 0} == told
    row = {"contender": "PyTorch eager", "ms": 25.0, "best_ms": 24.0, "worst_ms": 30.0, "rounds": 3}
    row |= {"images_per_s": 40.0, "times_ours": 2.5, "difference": 0.0, "decibels": None}
    assert only["rows"][1] == row
    assert only["left_out"][0]["wrong"] is False
    assert "not here: OpenVINO: needs openvino" in str(found)
    assert "CPU X, 2 cores, 1 threads; fastllie 0, torch 2, Python 3" in str(found)


# --- the others


class Names(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.spaces = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.spaces.add(function.namespace)
        return function(*args, **(kwargs or {}))


def subject(method, folder, dtype="float32", **options):
    return baselines.Subject(method, None, options, dtype=dtype, device=CPU, folder=folder)


@pytest.mark.parametrize(
    ("method", "options"),
    [("zerodce", {}), ("zerodce++", {"scale": 3}), ("sci", {}), ("enlightengan", {}), ("nerco", {})],
)
def test_the_plain_network_has_operators_of_pytorch_alone(method, options, tmp_path):
    found = subject(method, tmp_path, **options)
    x = contest.image(1, 37, 50)
    with torch.no_grad(), Names() as names:
        y = found.plain()(x)
    assert names.spaces <= {"aten", "prim"}
    ours = fastllie.Enhancer(method, weights=found.path, device="cpu", **options)(x)
    assert (y - ours).abs().max() < 1e-4
    assert (y - x).abs().max() > 1e-3


def test_a_subject_names_its_weights(tmp_path):
    assert subject("sci", tmp_path).weights == "strong"
    assert subject("nerco", tmp_path).weights == "fastllie"


def test_compiled_functions_are_counted_one_by_one(tmp_path, monkeypatch):
    codes = []

    def compile(function, dynamic):
        assert dynamic is False
        codes.append(function.__code__)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    x = contest.image(2, 30, 40)
    found = subject("sci", tmp_path)
    with torch.no_grad():
        compiled, eager = (baselines.call_of(name, found, x) for name in ("compile", "eager"))
        assert torch.equal(compiled(), eager())
        baselines.call_of("compile", found, x)
    assert codes[0] is not codes[1]


def test_what_is_exported_runs_where_it_is_installed(tmp_path):
    pytest.importorskip("onnxruntime")
    chosen = [name for name in baselines.RIVALS if not baselines.why_absent(name, CPU, "float32")]
    chosen.remove("compile")
    found = fastllie.benchmark("sci", **SMALL, batches=[2], device="cpu", against=chosen)
    (only,) = found.cases
    names = ["fastllie", "fastllie, uint8", *(baselines.RIVALS[name] for name in chosen)]
    assert [row.contender for row in only.rows] == names
    assert found.wrong == ()
    assert all(row.difference < 2.1e-3 and row.rounds == 1 for row in only.rows)


def test_one_that_cannot_be_exported_is_named_and_not_tried_again(tmp_path, monkeypatch):
    found = subject("nerco", tmp_path)
    with refused(baselines.Unexported, "nerco cannot be exported"):
        found.onnx()
    monkeypatch.setattr(baselines.exporting, "export", None)
    with refused(baselines.Unexported, "nerco cannot be exported"):
        found.onnx()


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)
    reason = "needs onnx, onnxscript, onnxruntime: `pip install fastllie[export]`"
    assert baselines.why_absent("onnxruntime", CPU, "float32") == reason
    assert baselines.why_absent("eager", CPU, "float32") is None
    assert contest.check_rivals(None, CPU, "float32") == ["eager", "compile"]
    with refused(ValueError, "cannot compare with onnxruntime", reason):
        fastllie.benchmark("sci", **SMALL, device="cpu", against=["onnxruntime"])
    monkeypatch.setattr(contest, "time_method", lambda *args, **settings: iter(()))
    assert fastllie.benchmark("sci", device="cpu").absent["ONNX Runtime"] == reason


def test_what_does_not_fit_the_device_or_precision_is_named():
    assert "CPU" in baselines.why_absent("openvino", torch.device("cuda"), "float32")
    assert "bfloat16" in baselines.why_absent("onnxruntime", CPU, "bfloat16")
    assert "float16" in baselines.why_absent("openvino", CPU, "float16")


def test_the_peak_is_what_is_held_at_one_time():
    with baselines.Peak() as peak:
        x = torch.zeros(1000)
        y = x + 1
        del x
        z = y + 1
        del y, z
    # two of a thousand float32 at a time, three in all
    assert peak.most == 8000


# --- what is left out


def eager_is(monkeypatch, make):
    monkeypatch.setitem(baselines._MAKERS, "eager", make)


def only_case(**changes):
    return fastllie.benchmark("sci", **{**SMALL, "device": "cpu", "against": ["eager"], **changes}).cases[0]


def test_a_wrong_result_has_no_row_and_is_named(monkeypatch):
    eager_is(monkeypatch, lambda subject, x: lambda: x + 0.01)
    found = fastllie.benchmark("sci", **SMALL, device="cpu", against=["eager"])
    assert [row.contender for row in found.cases[0].rows] == ["fastllie", "fastllie, uint8"]
    (line,) = found.wrong
    assert line.startswith("sci, 64x48, batch 1, float32: PyTorch eager: differs from the plain network by ")
    eager_is(monkeypatch, lambda subject, x: lambda: x[..., 1:])
    assert "inf" in only_case().left_out[0].reason
    eager_is(monkeypatch, lambda subject, x: lambda: x * float("nan"))
    assert only_case().left_out[0].wrong


def test_lower_precision_is_judged_in_decibels():
    want = torch.full((1, 3, 8, 8), 0.5)
    off = contest.compare(want + 0.02, want)
    assert "34 dB" in contest.why_wrong("eager", off, "bfloat16", CPU)
    assert contest.why_wrong("eager", contest.compare(want + 5e-3, want), "bfloat16", CPU) is None
    assert contest.compare(want, want) == (0.0, None)
    assert only_case(dtype="bfloat16").dtype == "bfloat16"


def test_what_fails_is_named_and_the_others_are_timed(monkeypatch):
    def broken(subject, x):
        if x.shape[-1] == 64:
            raise RuntimeError("no compiler\nfound")
        return lambda: x

    eager_is(monkeypatch, broken)
    found = only_case()
    assert found.left_out == (LeftOut("PyTorch eager", "failed: RuntimeError: no compiler", True),)
    assert len(found.rows) == 2


def test_an_error_of_ours_is_an_error(monkeypatch):
    real = fastllie.Enhancer.__call__

    def broken(self, image):
        if image.shape[-1] == 64:
            raise RuntimeError("ours")
        return real(self, image)

    monkeypatch.setattr(fastllie.Enhancer, "__call__", broken)
    with refused(RuntimeError, "ours"):
        only_case()


def test_what_would_take_too_long_is_not_tried(monkeypatch):
    tried = []

    def counted(subject, x):
        tried.append(x.shape)
        return lambda: x

    eager_is(monkeypatch, counted)
    found = only_case(seconds=1e-9, rounds=15)
    assert [one.contender for one in found.left_out] == ["fastllie", "fastllie, uint8", "PyTorch eager"]
    assert "s a call, and has 1e-09 s for 3" in found.left_out[2].reason
    assert (found.rows, found.unchecked) == ((), None)
    assert tried == [(1, 3, 32, 40)]


def test_what_would_take_too_much_memory_is_not_tried(monkeypatch):
    monkeypatch.setattr(contest, "free_memory", lambda device: 100.0)
    found = only_case()
    assert found.rows == ()
    assert all("GB of memory" in one.reason and not one.wrong for one in found.left_out)


def test_ours_is_timed_where_nothing_can_be_compared(monkeypatch):
    pixels = 64 * 48
    room = (contest.IMAGE_BYTES + 2) * pixels / contest.MEMORY_SHARE
    monkeypatch.setattr(contest, "free_memory", lambda device: room)
    found = only_case()
    assert [row.contender for row in found.rows] == ["fastllie", "fastllie, uint8"]
    assert found.unchecked.startswith("the plain network would take about")
    assert found.rows[0].difference is None


def test_rounds_fit_the_time(tmp_path):
    found = contest._Bench(subject("sci", tmp_path), [], 10, 6.0, {})
    assert found._rounds([0.5, 1.0]) == 6
    assert found._rounds([0.001]) == 10
    assert found._rounds([5.0]) == 3
    assert found._rounds([]) == 3


# --- the machine


def test_a_container_has_less_memory_than_its_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "GROUP", tmp_path)
    whole = machine.free_memory(CPU)
    for name, text in (("max", "5000"), ("current", "3000"), ("stat", "file 7\ninactive_file 500\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert machine.free_memory(CPU) == 2500
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory(CPU) == pytest.approx(whole, rel=0.5)


def test_the_machine_is_told_with_versions():
    about = machine.describe(CPU)
    assert about["device"] == about["cpu"]
    assert about["torch"] == torch.__version__
    assert about["threads"] == torch.get_num_threads()
    assert f"torch {torch.__version__}" in machine.in_words(about)


# --- wrong input


@pytest.mark.parametrize(
    ("kind", "settings", "parts"),
    [
        (ValueError, {"method": "zerodec"}, ["unknown method 'zerodec'", "zerodce"]),
        (ValueError, {"method": []}, ["method must not be empty"]),
        (ValueError, {"sizes": ["4k"]}, ["WIDTHxHEIGHT", "'4k'"]),
        (ValueError, {"sizes": ["0x5"]}, ["'0x5'"]),
        (TypeError, {"sizes": "64x48"}, ["sizes must be a list", "'64x48'"]),
        (TypeError, {"sizes": [(64, 48)]}, ["(64, 48)"]),
        (ValueError, {"batches": [0]}, ["batch must be at least 1, got 0"]),
        (TypeError, {"batches": [1.5]}, ["batch must be an integer, got 1.5"]),
        (ValueError, {"rounds": 0}, ["rounds must be at least 1"]),
        (ValueError, {"seconds": float("inf")}, ["seconds must be above 0 and finite, got inf"]),
        (TypeError, {"seconds": "4"}, ["seconds must be a number, got '4'"]),
        (ValueError, {"dtype": "float64"}, ["dtype must be one of", "'float64'"]),
        (ValueError, {"device": "tpu"}, ["unknown device 'tpu'"]),
        (ValueError, {"device": "meta"}, ["device must be the CPU or CUDA, got 'meta'"]),
        (ValueError, {"against": ["eagre"]}, ["unknown contender 'eagre'", "eager"]),
        (TypeError, {"against": "eager"}, ["against must be a list", "'eager'"]),
        (ValueError, {"method": ["sci", "zerodce"], "weights": "mild"}, ["weights are of one method"]),
        (TypeError, {"method": "sci", "scale": 4}, ["sci has no option 'scale'"]),
        (FileNotFoundError, {"weights": "no.pth"}, ["no.pth"]),
    ],
)
def test_refused(kind, settings, parts):
    with refused(kind, *parts):
        fastllie.benchmark(**{"method": "sci", "device": "cpu", "against": [], **SMALL, **settings})


def test_all_methods_are_all():
    assert contest._methods("all") == fastllie.list_methods()
    assert contest._methods(["sci", "sci"]) == ["sci"]


# --- the command line


def test_the_command_prints_tables_and_writes_the_file(tmp_path, capsys):
    arguments = ["benchmark", "--method", "sci", "zerodce", "--size", "64x48", "--rounds", "1"]
    arguments += ["--seconds", "60", "--batch", "1", "2", "--against", "eager", "--device", "cpu"]
    assert cli.main([*arguments, "--json", str(tmp_path / "a.json")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    titles = [f"{m}, 64x48, batch {b}, float32" for m in ("sci", "zerodce") for b in (1, 2)]
    assert [line for line in out.splitlines() if line.endswith("float32")] == titles
    assert out.count("PyTorch eager") == 4
    assert f"torch {torch.__version__}" in out
    content = json.loads((tmp_path / "a.json").read_text())
    assert [found["batch"] for found in content["cases"]] == [1, 2, 1, 2]


def test_the_command_fails_where_a_result_is_wrong(capsys, monkeypatch):
    eager_is(monkeypatch, lambda subject, x: lambda: x)
    arguments = ["benchmark", "--method", "sci", "--size", "64x48", "--rounds", "1", "--device", "cpu"]
    assert cli.main([*arguments, "--against", "eager"]) == 1
    out, err = capsys.readouterr()
    assert "left out: PyTorch eager: differs" in out
    assert err.startswith("fastllie benchmark: sci, 64x48, batch 1, float32: PyTorch eager: differs")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--size", "4k"], "a size is WIDTHxHEIGHT"),
        (["--json", "no/such/a.json"], "cannot write 'no/such/a.json'"),
        (["--method", "zerodec"], "unknown method"),
        (["--option", "scale"], "--option wants NAME=VALUE"),
    ],
)
def test_a_wrong_command_line_is_told(words, told, capsys):
    assert cli.main(["benchmark", *words]) == 2
    assert told in capsys.readouterr().err


def test_the_help_tells_the_defaults(capsys):
    with pytest.raises(SystemExit):
        cli.main(["benchmark", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"(default: {' '.join(contest.SIZES)})" in text
    assert f"turns at most (default: {contest.ROUNDS})" in text
    assert f"(default: {contest.SECONDS:g})" in text


@pytest.mark.gpu
def test_on_a_gpu():
    found = fastllie.benchmark("zerodce", **SMALL, device="cuda", against=["eager"])
    assert [row.contender for row in found.cases[0].rows] == ["fastllie", "fastllie, uint8", "PyTorch eager"]
    assert found.machine["device"] == torch.cuda.get_device_name()


# --- the record, and the page


def recorded(methods, path, monkeypatch, fails_at=None):
    """Record with a method that takes no time; returns what was timed."""
    timed = []

    def time_method(method, wanted, **settings):
        for height, width, batch in wanted:
            if len(timed) == fails_at:
                raise KeyboardInterrupt
            timed.append((method, f"{width}x{height}", batch))
            yield case(method=method, size=f"{width}x{height}", batch=batch, options=settings["options"])

    monkeypatch.setattr(contest, "time_method", time_method)
    record = methods.open_record(path, {"device": "CPU X", "date": str(path)})
    for _ in methods.record_all(
        path, record, ["sci", "zerodce++,scale=12"], ["600x400"], [1, 8], dtype="float32", device="cpu"
    ):
        pass
    return timed


def test_the_record_goes_on_where_it_was_interrupted(recorder, tmp_path, monkeypatch):
    path = tmp_path / "methods--x.json"
    with pytest.raises(KeyboardInterrupt):
        recorded(recorder["methods"], path, monkeypatch, fails_at=3)
    assert len(json.loads(path.read_text())["cases"]) == 3
    assert recorded(recorder["methods"], path, monkeypatch) == [("zerodce++", "600x400", 8)]
    assert recorded(recorder["methods"], path, monkeypatch) == []
    content = json.loads(path.read_text())
    assert [(found["method"], found["batch"]) for found in content["cases"]] == [
        ("sci", 1),
        ("sci", 8),
        ("zerodce++", 1),
        ("zerodce++", 8),
    ]


def test_figures_of_another_machine_are_thrown_away(recorder, tmp_path, capsys):
    path = tmp_path / "methods--x.json"
    path.write_text(json.dumps({"machine": {"commit": "a", "date": "1"}, "absent": {}, "cases": [1]}))
    open_record = recorder["methods"].open_record
    assert open_record(path, {"commit": "a", "date": "2"})["cases"] == [1]
    assert open_record(path, {"commit": "b", "date": "2"})["cases"] == []
    assert "begun anew: commit differ" in capsys.readouterr().out


def test_the_page_of_a_record(recorder, tmp_path):
    small = case(batch=8, rows=(), unchecked="the plain network takes about 9 s")
    official = case(method="nerco", options={"size_mode": "official"})
    # nobody to compare with
    alone = case(size="1920x1080", rows=case().rows[:1])
    found = Benchmark(ABOUT, (case(), small, alone, official), {"ONNX Runtime": "needs onnxruntime"})
    found.write_json(tmp_path / "methods--x.json")
    pages = recorder["page"].pages(tmp_path)
    text = pages["performance.md"]
    assert "[methods--x.json](../benchmarks/results/methods--x.json): CPU X, 2 cores, 1 threads" in text
    assert "Not there: ONNX Runtime: needs onnxruntime." in text
    assert "| 600x400 | 1 | **10.0** | 9.00..12.0 | 100 |  | 25.0 | 2.50 | 1.0e-07 |" in text
    assert "| 600x400 | 8 |  |  |  |  |  |  |  |" in text
    assert "- 600x400, batch 8: OpenVINO takes about 9 s a call, and has 6 s for 3" in text
    assert "- 600x400, batch 8: not compared, for the plain network takes about 9 s" in text
    assert "### nerco size_mode=official" in text
    assert "No GPU has been measured yet" in text
    chart = pages["performance-methods.svg"]
    assert "(performance-methods.svg)" in text
    assert chart.count("<rect") == 4
    assert ">sci, 600x400, ms</text>" in chart
    assert ">25.0</text>" in chart
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="12"', chart)]
    assert widths[0] / widths[1] == pytest.approx(10 / 25, rel=0.01)
    assert "performance-inference.svg" not in pages


@pytest.mark.parametrize(
    "record",
    [
        {
            "machine": {"device": "GPU Y"},
            "figures": {"sci": {"rows": {"forward": {"cuda": {"ms": 0.5, "share_of_copy": 0.6}}}}},
        },
        {"device": "GPU Y", "results": [{"name": "sci", "shape": "forward", "contender": "cuda", "ms": 0.5}]},
    ],
)
def test_figures_of_a_gpu_get_a_section(recorder, tmp_path, record):
    (tmp_path / "gpu--y.json").write_text(json.dumps(record))
    text = recorder["page"].pages(tmp_path)["performance.md"]
    assert "[gpu--y.json](../benchmarks/results/gpu--y.json): GPU Y." in text
    assert "| sci, forward | cuda | 0.500 | " + ("60%" if "machine" in record else "") + " |" in text
    assert "No GPU has been measured yet" not in text


def test_the_committed_page_is_what_the_figures_make(recorder, monkeypatch, capsys):
    page = recorder["page"]
    if not (ROOT / "docs").is_dir():
        pytest.skip("docs/ is not here")
    for name, text in page.pages(page.RESULTS).items():
        committed = ROOT / "docs" / name
        assert committed.exists(), f"docs/{name} is missing: run python benchmarks/page.py"
        assert committed.read_text(encoding="utf-8") == text, f"docs/{name} is stale: run benchmarks/page.py"


def test_check_tells_a_stale_page(recorder, tmp_path, monkeypatch, capsys):
    page = recorder["page"]
    monkeypatch.setattr(page, "DOCS", tmp_path)
    monkeypatch.setattr(page.sys, "argv", ["page.py", "--check"])
    assert page.main() == 1
    assert "docs/performance.md is stale" in capsys.readouterr().err
    monkeypatch.setattr(page.sys, "argv", ["page.py"])
    assert page.main() == 0
    monkeypatch.setattr(page.sys, "argv", ["page.py", "--check"])
    assert page.main() == 0
