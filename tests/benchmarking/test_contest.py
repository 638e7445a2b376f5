"""`fastllie benchmark`: who takes part, in turns, whose results are right, and what is left out."""

import json

import pytest
import torch
from figures import ABOUT, case
from helpers import refused, ship_random_weights
from torch.utils._python_dispatch import TorchDispatchMode

import fastllie
from fastllie import cli
from fastllie.benchmarking import baselines, bench, contest, machine, memory, timing
from fastllie.benchmarking.timing import Benchmark, LeftOut, Timed, Turn

CPU = torch.device("cpu")
SMALL = {"sizes": ["64x48"], "rounds": 1, "seconds": 60}


@pytest.fixture(autouse=True, scope="module")
def weights(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        ship_random_weights(tmp_path_factory.mktemp("weights"), patch)
        patch.setattr(bench, "PROBE", (32, 40))
        yield


# --- taking turns, and what comes of it


def test_contenders_take_turns(monkeypatch):
    asleep = []
    monkeypatch.setattr(timing.time, "sleep", asleep.append)
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    taken = timing.interleave(calls, {"a": 1.0, "b": 1.0}, {"a": 3, "b": 2}, CPU, rest=0.1)
    # who has fewer is done earlier
    assert "".join(order) == "ababa"
    assert asleep == [0.1] * 5
    assert {name: len(turns) for name, turns in taken.items()} == {"a": 3, "b": 2}


def test_a_contender_whose_turns_agree_is_done(monkeypatch):
    seconds = {"calm": iter([1.0] * 9), "restless": iter([1.0, 1.2] * 9)}
    monkeypatch.setattr(timing, "turn_of", lambda call, repeats, device: Turn(next(call()), 0.5))
    calls = {name: (lambda name=name: seconds[name]) for name in seconds}
    once, rounds = dict.fromkeys(calls, 1.0), dict.fromkeys(calls, 7)
    taken = timing.interleave(calls, once, rounds, CPU, steady=0.05)
    assert {name: len(turns) for name, turns in taken.items()} == {"calm": timing.LEAST_ROUNDS, "restless": 7}


def test_short_calls_are_repeated_after_some_that_do_not_count(monkeypatch):
    clock, processors = iter(range(1000)), iter(range(0, 2000, 2))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(timing.time, "process_time", lambda: float(next(processors)))
    count = []
    taken = timing.interleave({"a": lambda: count.append(1)}, {"a": timing.RESOLVED / 4}, {"a": 2}, CPU)
    assert len(count) == 2 * (4 + 4)
    # from one reading of the clock to the next is a second, of four calls
    assert taken == {"a": [Turn(0.25, 0.5)] * 2}


def test_a_row_has_the_median_the_range_and_the_ratio():
    turns = [Turn(0.4, 0.5), Turn(0.1, 0.2), Turn(0.2, 0.3)]
    ours = [Turn(seconds, 0.0) for seconds in (0.05, 0.1, 0.3)]
    row = timing.row_of("X", turns, 8, ours, (1e-6, 120.0), 5e6)
    assert row == Timed("X", 200.0, 100.0, 400.0, 3, 40.0, 2.0, 1e-6, 120.0, 300.0, 5.0)
    alone = timing.row_of("X", [Turn(0.5, 0.5)], 1, None, None)
    assert (alone.times_ours, alone.difference, alone.decibels, alone.peak_mb) == (None, None, None, None)


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
    assert ours.split() == ["fastllie", "10.0", "9.00..12.0", "19.0", "100", "1.00", "7.00", "1.0e-07"]
    assert eager.split() == ["PyTorch", "eager", "25.0", "24.0..30.0", "-", "40.0", "2.50", "-", "0.0e+00"]
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
    expected = {"method": "sci", "options": {}, "weights": "strong", "size": "600x400", "batch": 1}
    expected |= {"dtype": "float32", "rows": 0, "left_out": 0, "unchecked": None}
    assert {**only, "rows": 0, "left_out": 0} == expected
    row = {"contender": "PyTorch eager", "ms": 25.0, "best_ms": 24.0, "worst_ms": 30.0, "rounds": 3}
    row |= {"images_per_s": 40.0, "times_ours": 2.5, "difference": 0.0, "decibels": None}
    row |= {"cpu_ms": None, "peak_mb": None}
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
    x = bench.image(1, 37, 50)
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
    x = bench.image(2, 30, 40)
    found = subject("sci", tmp_path)
    with torch.no_grad():
        compiled, eager = (baselines.call_of(name, found, x) for name in ("compile", "eager"))
        assert torch.equal(compiled(), eager())
        baselines.call_of("compile", found, x)
    assert codes[0] is not codes[1]


def test_what_is_exported_runs_where_it_is_installed(tmp_path):
    pytest.importorskip("onnxruntime")
    chosen = [name for name in baselines.BASELINES if not baselines.why_absent(name, CPU, "float32")]
    chosen.remove("compile")
    found = fastllie.benchmark("sci", **SMALL, batches=[2], device="cpu", against=chosen)
    (only,) = found.cases
    names = ["fastllie", "fastllie, uint8", *(baselines.BASELINES[name] for name in chosen)]
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
    assert contest.check_baselines(None, CPU, "float32") == ["eager", "channels_last", "compile"]
    with refused(ValueError, "cannot compare with onnxruntime", reason):
        fastllie.benchmark("sci", **SMALL, device="cpu", against=["onnxruntime"])
    monkeypatch.setattr(contest, "time_method", lambda *args, **settings: iter(()))
    assert fastllie.benchmark("sci", device="cpu").absent["ONNX Runtime"] == reason


def test_what_does_not_fit_the_device_or_precision_is_named():
    assert "CPU" in baselines.why_absent("openvino", torch.device("cuda"), "float32")
    assert "bfloat16" in baselines.why_absent("onnxruntime", CPU, "bfloat16")
    assert "float16" in baselines.why_absent("openvino", CPU, "float16")


def test_the_peak_is_what_is_held_at_one_time():
    with memory.Peak() as peak:
        x = torch.zeros(1000)
        y = x + 1
        del x
        z = y + 1
        del y, z
    # two of a thousand float32 at a time, three in all
    assert peak.most == 8000


def test_the_growth_of_a_call_is_what_it_took():
    megabytes = 64
    result, peak = memory.growth(lambda: torch.ones(megabytes << 18).sum(), CPU)
    assert result == megabytes << 18
    if not (memory.PROCESS / "clear_refs").exists():
        assert peak is None
        return
    # the system counts pages, and other threads have some
    assert peak == pytest.approx(megabytes << 20, rel=0.1)


def test_a_system_without_peaks_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "none")
    assert memory.growth(lambda: 7, CPU) == (7, None)


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
    off = bench.compare(want + 0.02, want)
    assert "34 dB" in bench.why_wrong("eager", off, "bfloat16", CPU)
    assert bench.why_wrong("eager", bench.compare(want + 5e-3, want), "bfloat16", CPU) is None
    assert bench.compare(want, want) == (0.0, None)
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
    monkeypatch.setattr(bench, "free_memory", lambda device: 100.0)
    found = only_case()
    assert found.rows == ()
    assert all("GB of memory" in one.reason and not one.wrong for one in found.left_out)


def test_ours_is_timed_where_nothing_can_be_compared(monkeypatch):
    pixels = 64 * 48
    room = (bench.IMAGE_BYTES + 2) * pixels / bench.MEMORY_SHARE
    monkeypatch.setattr(bench, "free_memory", lambda device: room)
    found = only_case()
    assert [row.contender for row in found.rows] == ["fastllie", "fastllie, uint8"]
    assert found.unchecked.startswith("the plain network would take about")
    assert found.rows[0].difference is None


def test_rounds_fit_the_time(tmp_path):
    found = bench.Bench(subject("sci", tmp_path), [], bench.Effort(10, 6.0))
    assert [found._rounds(once) for once in (1.0, 0.001, 5.0)] == [6, 10, 3]


def test_a_further_contender_takes_part(tmp_path):
    further = {"as published": lambda subject, x: lambda: subject.plain()(x)}
    wanted = {"dtype": "float32", "device": CPU, "against": [], "options": {}, "folder": tmp_path}
    (only,) = contest.time_method(
        "sci", [(48, 64, 1)], **wanted, further=further, effort=bench.Effort(1, 60.0)
    )
    assert [row.contender for row in only.rows] == ["fastllie", "fastllie, uint8", "as published"]


def test_channels_last_is_the_same_network(tmp_path):
    x = bench.image(1, 30, 40)
    found = subject("zerodce", tmp_path)
    with torch.no_grad():
        eager, last = (baselines.call_of(name, found, x)() for name in ("eager", "channels_last"))
    assert (eager - last).abs().max() < 1e-6
    assert last.is_contiguous(memory_format=torch.channels_last)


# --- the machine


def test_a_container_has_less_memory_than_its_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    whole = memory.free_memory(CPU)
    for name, text in (("max", "5000"), ("current", "3000"), ("stat", "file 7\ninactive_file 500\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.free_memory(CPU) == 2500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory(CPU) == pytest.approx(whole, rel=0.5)


def test_the_machine_is_described_with_versions():
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
        (ValueError, {"device": "meta"}, ["device 'meta' holds no values"]),
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
    ("words", "message"),
    [
        (["--size", "4k"], "a size is WIDTHxHEIGHT"),
        (["--json", "no/such/a.json"], "cannot write 'no/such/a.json'"),
        (["--method", "zerodec"], "unknown method"),
        (["--option", "scale"], "--option wants NAME=VALUE"),
    ],
)
def test_a_wrong_command_line_is_refused(words, message, capsys):
    assert cli.main(["benchmark", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_help_has_the_defaults(capsys):
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
