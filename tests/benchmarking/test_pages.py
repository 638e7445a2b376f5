"""The record of all methods, and the pages that are made of the figures."""

import json
import re
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from figures import ABOUT, case
from helpers import refused, ship_random_weights

import fastllie
from fastllie import methods as table_of_methods
from fastllie.benchmarking import bench, contest
from fastllie.ops import measured

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "benchmarks" / "page.py").exists() or not (ROOT / "docs").is_dir():
    pytest.skip("benchmarks/ and docs/ are not here", allow_module_level=True)
if str(ROOT / "benchmarks") not in sys.path:
    sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu_tables  # noqa: E402
import methods  # noqa: E402
import page  # noqa: E402
import record  # noqa: E402
import score_tables  # noqa: E402
import tables  # noqa: E402

# --- the record


def timed(path, monkeypatch, *, fails_at=None, until=float("inf")):
    """Record with a method that takes no time; returns what was timed."""
    found = []

    def time_method(method, wanted, **settings):
        for height, width, batch in wanted:
            if len(found) == fails_at:
                raise KeyboardInterrupt
            found.append((method, f"{width}x{height}", batch, settings["dtype"], settings["against"]))
            yield case(
                method=method,
                size=f"{width}x{height}",
                batch=batch,
                dtype=settings["dtype"],
                options=dict(settings["options"]),
                weights=str(settings["weights"] or "fastllie"),
            )

    monkeypatch.setattr(contest, "time_method", time_method)
    monkeypatch.setattr(methods, "published_width", lambda method, folder: folder / method)
    entries = [
        methods.Entry("sci", (("600x400", 1), ("600x400", 8)), against=("eager",)),
        methods.Entry("zerodce++", (("600x400", 1),), {"scale": 12}, "bfloat16", against=("compile",)),
        methods.Entry("nerco", (("320x240", 1),), weights=methods.PUBLISHED_WIDTH, against=()),
    ]
    content = methods.open_record(path, {"device": "CPU X", "date": str(path)})
    for _ in methods.record_all(path, content, entries, device="cpu", until=until):
        pass
    return found


def test_the_record_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    path = tmp_path / "methods--x.json"
    with pytest.raises(KeyboardInterrupt):
        timed(path, monkeypatch, fails_at=2)
    assert len(json.loads(path.read_text())["cases"]) == 2
    assert timed(path, monkeypatch) == [
        ("zerodce++", "600x400", 1, "bfloat16", ["compile"]),
        ("nerco", "320x240", 1, "float32", []),
    ]
    assert timed(path, monkeypatch) == []
    content = json.loads(path.read_text())
    assert [found["weights"] for found in content["cases"]] == ["fastllie"] * 3 + [methods.PUBLISHED_WIDTH]


def test_nothing_is_begun_when_the_time_is_over(tmp_path, monkeypatch):
    path = tmp_path / "methods--x.json"
    assert timed(path, monkeypatch, until=time.monotonic() - 1) == []
    assert len(timed(path, monkeypatch)) == 4


def test_figures_of_another_machine_are_thrown_away(tmp_path, capsys):
    path = tmp_path / "methods--x.json"
    path.write_text(json.dumps({"machine": {"commit": "a", "date": "1"}, "absent": {}, "cases": [1]}))
    assert methods.open_record(path, {"commit": "a", "date": "2"})["cases"] == [1]
    assert methods.open_record(path, {"commit": "b", "date": "2"})["cases"] == []
    assert "begun anew: commit differ" in capsys.readouterr().out


def test_the_plan_has_every_method_and_no_case_twice():
    entries = methods.plan()
    assert {entry.method for entry in entries} == set(fastllie.list_methods())
    assert {entry.dtype for entry in entries} == {"float32", "bfloat16"}
    keys = [key for entry in entries for key in methods.keys_of(entry)]
    assert len(set(keys)) == len(keys)
    shown = [entry for entry in entries if ("1920x1080", 1) in entry.cases and entry.dtype == "float32"]
    # what the README shows comes first, and is beside everybody
    assert entries[: len(shown)] == shown
    assert {entry.method for entry in shown} == set(fastllie.list_methods())
    assert all(entry.against is None or entry.method in methods.UNCOMPILED for entry in shown)
    (only,) = {entry.method for entry in methods.plan(["sci"])}
    assert only == "sci"


def test_a_case_is_found_again_in_its_record():
    for entry in methods.plan():
        for (size, batch), key in zip(entry.cases, methods.keys_of(entry), strict=True):
            weights = entry.weights or table_of_methods.info(entry.method).weights[0].name
            found = case(method=entry.method, options=dict(entry.options), weights=weights)
            found = {**asdict(found), "dtype": entry.dtype, "size": size, "batch": batch}
            assert methods.key_of(found) == key


def test_the_contest_runs(tmp_path, monkeypatch):
    """At a tiny size: a method with random weights, and the published structure of NeRCo beside ours."""
    with monkeypatch.context() as patch:
        ship_random_weights(tmp_path, patch)
        patch.setattr(bench, "PROBE", (32, 40))
        patch.setattr(methods, "published_width", lambda method, folder: nerco_of_width(2, folder))
        wide = [entry for entry in methods.plan(["nerco"], ["64x48"]) if entry.weights]
        (last,) = (entry for entry in wide if entry.dtype == "float32")
        entries = [methods.Entry("sci", (("64x48", 2),), against=("eager",)), last]
        path = tmp_path / "a.json"
        found = list(
            methods.record_all(
                path,
                methods.open_record(path, {}),
                entries,
                device="cpu",
                until=time.monotonic() + 600,
                rounds=1,
                seconds=60,
            )
        )
    assert [row.contender for row in found[0].rows] == ["fastllie", "fastllie, uint8", "PyTorch eager"]
    assert [row.contender for row in found[1].rows][-1] == "as published"
    assert not any(one.wrong for only in found for one in only.left_out)
    assert all(row.cpu_ms > 0 for only in found for row in only.rows)


def nerco_of_width(width, folder):
    from safetensors.torch import save_file

    from fastllie.models import NeRCo

    path = folder / "narrow.safetensors"
    save_file(NeRCo(width=width).state_dict(), path, {"format": "fastllie", "method": "nerco"})
    return path


def test_names_of_files():
    name = record.path_of("methods", "Intel(R) Xeon(R) 8481C @ 2.7 GHz").name
    assert name == "methods--intel-r-xeon-r-8481c-2-7-ghz.json"
    assert record.path_of("flicker").name == "flicker.json"


# --- the pages


def results_of(folder, *records):
    """A folder of results: these records of all methods, by name, and the committed ones of the rest."""
    for path in record.RESULTS.glob("*.json"):
        if not path.name.startswith("methods--"):
            shutil.copy(path, folder)
    for name, content in records:
        (folder / f"methods--{name}.json").write_text(json.dumps(content))
    return folder


def content_of(*cases, complete=True, **machine):
    made = [asdict(one) for one in cases]
    return {"machine": {**ABOUT, **machine}, "complete": complete, "absent": {}, "cases": made}


def test_the_tables_of_a_record(tmp_path):
    small = case(batch=8, rows=(), unchecked="the plain network takes about 9 s")
    # nobody to compare with
    alone = case(size="1920x1080", rows=case().rows[:1])
    wide = case(method="nerco", options={"size_mode": "official"}, weights=methods.PUBLISHED_WIDTH)
    content = content_of(case(), small, alone, wide)
    content["absent"] = {"ONNX Runtime": "needs onnxruntime"}
    text, panels = tables.method_parts(results_of(tmp_path, ("x", content)))
    assert "[methods--x.json](../benchmarks/results/methods--x.json): CPU X, 2 cores, 1 threads" in text
    assert "Not there: ONNX Runtime: needs onnxruntime." in text
    row = "| 600x400 | 1 | float32 | **10.0** | 9.00..12.0 | 100 |  | 25.0 | 2.50 | 1.0e-07 |"
    assert row in text
    assert "| 600x400 | 8 | float32 |  |  |  |  |  |  |  |" in text
    assert "- 600x400, batch 8, float32: OpenVINO takes about 9 s a call, and has 6 s for 3" in text
    assert "- 600x400, batch 8, float32: not compared, for the plain network takes about 9 s" in text
    assert "### nerco size_mode=official" in text
    assert "| 600x400, float32, random, of the published width | fastllie | 10.0 | 19.0 | 7.00 | 3 |" in text
    # the size of a screen is not compared with anybody, so its chart is of the other
    assert [panel.title for panel in panels] == [
        "nerco size_mode=official, 600x400, float32, random, of the published width",
        "sci, 600x400",
    ]


def test_the_chart(tmp_path):
    chart = page.pages(results_of(tmp_path, ("x", content_of(case()))))[page.CHART]
    assert chart.count("<rect") == 2
    assert ">sci, 600x400, ms</text>" in chart
    assert ">25.0</text>" in chart
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="12"', chart)]
    assert widths[0] / widths[1] == pytest.approx(10 / 25, rel=0.01)


def test_the_newest_complete_record_is_shown(tmp_path):
    old = content_of(case(), device="CPU A", date="2026-01-01")
    new = content_of(case(), device="CPU B", date="2026-02-01")
    begun = content_of(case(), complete=False, device="CPU C", date="2026-03-01")
    folder = results_of(tmp_path, ("a", old), ("b", new), ("c", begun))
    assert tables.newest(folder)[0].name == "methods--b.json"
    for name in "ab":
        (folder / f"methods--{name}.json").unlink()
    assert tables.newest(folder)[0].name == "methods--c.json"
    (folder / "methods--c.json").unlink()
    assert tables.newest(folder) is None
    assert tables.method_parts(folder) == (tables.WITHOUT_METHODS, [])


def test_the_overview_has_each_method_with_what_was_measured(tmp_path):
    large = case(size="1920x1080")
    lines = tables.overview(results_of(tmp_path, ("x", content_of(large)))).splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| `")]
    rows = {row[1]: row for row in cells}
    assert {name.strip("`") for name in rows} >= set(fastllie.list_methods())
    assert rows["`sci`"][4:6] == ["10.0", "25.0, PyTorch eager"]
    assert "/" in rows["`sci`"][6]
    # not measured, so not there
    assert rows["`zerodce`"][4:6] == ["", ""]
    assert rows["`zerodce++`, `scale=12`"][6] != rows["`zerodce++`"][6]


@pytest.mark.parametrize(
    "content",
    [
        {
            "machine": {"device": "GPU Y"},
            "figures": {"sci": {"rows": {"forward": {"cuda": {"ms": 0.5, "share_of_copy": 0.6}}}}},
        },
        {"device": "GPU Y", "results": [{"name": "sci", "shape": "forward", "contender": "cuda", "ms": 0.5}]},
    ],
)
def test_figures_of_a_gpu_have_a_table(tmp_path, content):
    assert tables.gpus(tmp_path) == tables.WITHOUT_GPU
    (tmp_path / "gpu--y.json").write_text(json.dumps(content))
    text = tables.gpus(tmp_path)
    assert "[gpu--y.json](../benchmarks/results/gpu--y.json): GPU Y." in text
    assert "| sci, forward | cuda | 0.500 | " + ("60%" if "machine" in content else "") + " |" in text


def test_the_committed_pages_are_what_the_figures_make():
    for name, text in page.pages(page.RESULTS).items():
        committed = ROOT / name
        assert committed.exists(), f"{name} is missing: run python benchmarks/page.py"
        assert committed.read_text(encoding="utf-8") == text, f"{name} is stale: run benchmarks/page.py"


def test_the_backend_that_serves_is_what_the_machine_code_says():
    assert dict.fromkeys(gpu_tables.preferred(page.RESULTS), "triton") == measured.ESTIMATED


def test_every_block_is_shown_somewhere():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    shown = [name for text in texts for _, name, _ in page.MARKED.findall(text)]
    assert sorted(shown) == sorted(page.BLOCKS)
    assert sum(text.count("<!-- figures:") for text in texts) == len(shown)


def test_the_zoo_has_every_method_and_variant():
    named = set(score_tables.TAKE)
    for method in table_of_methods.METHODS:
        variants = [one.name for one in table_of_methods.info(method).weights]
        assert method in named or {f"{method}, {variant}" for variant in variants} <= named, method
    rows = tables.load(page.RESULTS / "quality.json")["rows"]
    titles = [score_tables.row_of(name, rows) for name in score_tables.TAKE]
    assert set(titles) <= rows.keys()
    assert len(set(titles)) == len(titles)


def test_no_figure_of_the_readme_is_typed_by_hand():
    text = page.MARKED.sub("", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert re.findall(r"\d[\d.,]* ?(?:ms|s|dB|GB|MB|%|x|times)\b", text) == []
    assert len(text.splitlines()) <= 130


def test_a_block_that_nothing_makes_is_an_error():
    with refused(ValueError, "nothing makes the block 'speed'", "overview"):
        page.filled("<!-- figures: speed -->\n<!-- /figures -->", page.RESULTS)


def test_check_reports_a_stale_page(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# A\n\n<!-- figures: gpus -->\n7 ms\n<!-- /figures -->\nb\n")
    (tmp_path / "docs" / "plain.md").write_text("no figures")
    monkeypatch.setattr(page, "ROOT", tmp_path)
    monkeypatch.setattr(page.sys, "argv", ["page.py", "--check"])
    assert page.main() == 1
    assert "README.md is stale" in capsys.readouterr().err
    monkeypatch.setattr(page.sys, "argv", ["page.py"])
    assert page.main() == 0
    assert "7 ms" not in (tmp_path / "README.md").read_text()
    assert (tmp_path / "README.md").read_text().endswith("<!-- /figures -->\nb\n")
    monkeypatch.setattr(page.sys, "argv", ["page.py", "--check"])
    assert page.main() == 0
