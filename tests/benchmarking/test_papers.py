"""The papers' tables: the command at a tiny size, its parts, and the page that is made of the record."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "benchmarks" / "papers.py").exists() or not (ROOT / "docs").is_dir():
    pytest.skip("benchmarks/ and docs/ are not here", allow_module_level=True)
if str(ROOT / "benchmarks") not in sys.path:
    sys.path.insert(0, str(ROOT / "benchmarks"))

import methods_pictures  # noqa: E402
import papers  # noqa: E402
import papers_curves  # noqa: E402
import papers_gans  # noqa: E402
import papers_pictures  # noqa: E402
import papers_runs  # noqa: E402
import papers_sci  # noqa: E402
import papers_tables  # noqa: E402

from fastllie.models import SCI, EnlightenGAN, NeRCo, ZeroDCE  # noqa: E402
from fastllie.training.data import Batch  # noqa: E402

PHOTOGRAPHS = 12


def photograph(path, size, seed, level=1.0):
    random = np.random.default_rng(seed)
    small = random.uniform(60, 220, (size[1] // 8, size[0] // 8, 3)) * level
    image = Image.fromarray(small.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder as the inputs of the benchmarks are laid out, with pictures that were made."""
    folder = tmp_path_factory.mktemp("shared")
    data = folder / "data"
    lines = ["file,author,licence"]
    for place in range(PHOTOGRAPHS):
        photograph(data / "free_photos" / f"{place}.jpg", (400, 380), place)
        lines.append(f"{place}.jpg,A,CC-BY-4.0")
    for chosen in methods_pictures.PHOTOGRAPHS:
        photograph(data / "free_photos" / chosen.file, (640, 427), 90)
        lines.append(f"{chosen.file},B,CC0")
    (data / "free_photos" / "photos.csv").write_text("\n".join(lines) + "\n")
    for place in range(2):
        for side, level in (("low", 0.2), ("high", 1.0)):
            photograph(data / "lol_val40" / side / f"{place}.png", (64, 48), place, level)
    for name in ("DICM", "MEF", "NPE"):
        photograph(data / "unpaired" / name / "a.png", (64, 48), 7, 0.3)
    return folder


def run(shared, tmp_path, *words):
    return papers.main(
        [
            "--shared",
            str(shared),
            "--work",
            str(tmp_path / "work"),
            "-o",
            str(tmp_path),
            "--steps",
            "2",
            *words,
        ]
    )


def recorded(folder):
    return json.loads((folder / "papers.json").read_text())["rows"]


def test_the_command_measures_keeps_and_goes_on(shared, tmp_path, capsys):
    assert run(shared, tmp_path, "--only", "SCI, 1 block, 3") == 0
    (name,) = recorded(tmp_path)
    row = recorded(tmp_path)[name]
    assert row["trained"]["photographs"] == PHOTOGRAPHS
    assert row["trained"]["steps"] == 2
    assert row["scores"]["parameters"] == 258
    assert row["scores"]["gmacs"] == pytest.approx(243 * 240_000 / 1e9)
    assert np.shape(row["scores"]["stages"]) == (2, papers_sci.STAGES_SHOWN - 1)
    assert 0 < row["scores"]["lol_ssim"] < 1
    assert papers_runs.picture_of(tmp_path / "work", name).exists()
    # what is there is not done again
    capsys.readouterr()
    assert run(shared, tmp_path, "--only", "SCI, 1 block, 3") == 0
    assert capsys.readouterr().out == ""
    assert run(shared, tmp_path, "--list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0] == f"measured  {name}"
    assert sum(line.startswith("missing") for line in listed) == len(listed) - 1
    # other settings are other figures
    assert run(shared, tmp_path, "--only", "SCI, 1 block, 3", "--steps", "1") == 0
    assert recorded(tmp_path)[name]["trained"]["steps"] == 1


@pytest.mark.parametrize("name", ["RUAS(3)", "Zero-DCE, n = 2", "Zero-DCE++", "NeRCo without mask"])
def test_a_row_of_each_kind_runs(shared, tmp_path, name):
    assert run(shared, tmp_path, "--only", name) == 0
    scores = recorded(tmp_path)[name]["scores"]
    assert all(np.isfinite(value) for value in scores.values())


def test_a_row_of_enlightengan_runs(shared, tmp_path):
    weights = ROOT.parent / "shared" / "weights"
    if not weights.is_dir():
        pytest.skip("the weights of VGG-16 are not here")
    (shared / "weights").symlink_to(weights)
    name = papers_gans.UNDISPUTED
    assert run(shared, tmp_path, "--only", name) == 0
    assert recorded(tmp_path)[name]["trained"]["batch"] == papers_gans.SMALL_ENLIGHTENGAN.batch


def test_a_name_that_no_row_has(shared, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(shared, tmp_path, "--only", "retinex")
    assert "no row has 'retinex' in its name" in capsys.readouterr().err


def test_every_row_stands_in_a_table_and_on_no_two_ways(shared):
    pictures = papers_runs.Pictures(shared, shared)
    planned = [row.name for row in papers.plan(pictures)]
    assert len(set(planned)) == len(planned)
    shown = {name for names, _ in papers_tables.TABLES.values() for name in names}
    assert shown == set(planned)
    drawn = {name for names in papers_tables.SHEETS.values() for name in names}
    assert drawn <= set(planned)
    assert {file for file, _ in papers_tables.PICTURES.values()} == set(papers_tables.SHEETS)


# --- what is left out is out


def test_uncalibrated_stages_take_the_illumination_before():
    network = papers_sci.Uncalibrated()
    y = torch.rand(1, 3, 16, 16) * 0.3
    found = network.stages(y, 3)
    assert torch.equal(found.inputs[0], y)
    assert all(torch.equal(v, illum) for v, illum in zip(found.inputs[1:], found.illum, strict=False))
    assert not found.corrections


def test_ruas_of_one_block_is_the_illumination_module():
    torch.manual_seed(0)
    network = papers_sci.UnrolledRUAS(1)
    y = torch.rand(1, 3, 12, 14)
    expected = SCI(block=network.blocks[0])(y)
    assert torch.allclose(network(y), expected, atol=1e-6)
    # later blocks have weights of their own, and change the result
    assert sum(value.numel() for value in papers_sci.UnrolledRUAS(3).parameters()) == 3 * 387


def test_iterations_and_maps():
    x = torch.rand(1, 3, 24, 24)
    full, published = papers_curves.Iterated(8), ZeroDCE(padding="zeros")
    full.load_state_dict(published.state_dict())
    with torch.no_grad():
        assert torch.allclose(full(x), published(x), atol=1e-5)
    assert papers_curves.Iterated(3).raw_maps(x).shape[1] == 9
    assert papers_curves.Iterated(8, shared=True).raw_maps(x).shape[1] == 3
    separable = papers_curves.Iterated(8, shared=True, separable=True)
    assert sum(value.numel() for value in separable.parameters()) == 10_561


def test_a_loss_that_is_left_out_is_not_computed():
    rows = {row.name: row for row in papers_curves.rows()}
    for loss in papers_curves.LOSSES:
        row = rows[papers_curves.without(loss)]
        task = row.learner(row.recipe, 1)
        assert set(task.loss_names()) == set(papers_curves.LOSSES) - {loss}


def test_without_an_attention_map_the_image_is_not_looked_at_twice():
    torch.manual_seed(0)
    network = EnlightenGAN(width=2).eval()
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        v = 2 * x - 1
        expected = network.generate(v, torch.ones_like(v[:, :1])).image
        even = papers_gans.EvenlyAttentive(network)(x)
        assert torch.allclose(even, ((expected + 1) / 2).clamp(0, 1), atol=1e-6)
        assert not torch.allclose(even, network(x), atol=1e-3)


def test_parts_of_nerco_that_are_left_out():
    torch.manual_seed(0)
    network = NeRCo(width=4, blocks=1, mask_blocks=1).eval()
    x = torch.rand(1, 3, 32, 32)
    network.Pre, network.H = papers_gans.Unrepresented(), papers_gans.Unmasked()
    with torch.no_grad():
        v = 2 * x - 1
        assert torch.allclose(network(x), (network.G_A(torch.cat([v, v], 1)) + 1) / 2, atol=1e-5)


def test_widths_are_trained_alike_by_pairs_alone():
    rows = papers_gans.width_rows()
    assert [row.recipe.width for row in rows] == list(papers_gans.WIDTHS)
    assert len({replace(row.recipe, width=1) for row in rows}) == 1
    row = rows[0]
    task = row.learner(replace(row.recipe, blocks=1), 1)
    task.total_steps = row.recipe.steps
    task.steps_done = row.recipe.steps - 1
    assert not task.judging


def test_nobody_hears_the_local_discriminator(monkeypatch):
    monkeypatch.setattr(
        papers_gans.EnlightenGANTask, "_generator_losses", lambda self, batch, faces: {"local": 3.0, "a": 1.0}
    )
    task = papers_gans.UndisputedTask.__new__(papers_gans.UndisputedTask)
    found = task._generator_losses(Batch(torch.zeros(1), torch.zeros(1)), None)
    assert (float(found["local"]), found["a"]) == (0, 1.0)


def test_the_reader_that_stands_in_for_clip_tells_dark_from_normal_light(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(papers_gans, "READER_STEPS", 60)
    reader = papers_gans.trained_reader(shared, tmp_path)
    assert not any(value.requires_grad for value in reader.parameters())
    dark, normal = (reader(torch.full((1, 3, 64, 64), level)).softmax(1)[0, 1] for level in (-0.95, 0.1))
    assert dark < 0.5 < normal


# --- the figures


def test_multiplications_are_counted_by_layer():
    found = papers_runs.cost(nn.Conv2d(3, 3, 3, padding=1, stride=1))
    assert found == {"parameters": 84, "gmacs": pytest.approx(81 * 240_000 / 1e9)}
    grouped = papers_runs.cost(nn.Conv2d(3, 3, 1, groups=3, bias=False))
    assert grouped == {"parameters": 3, "gmacs": pytest.approx(3 * 240_000 / 1e9)}


def test_patches_that_are_burnt_or_unlit():
    image = np.full((64, 70, 3), 0.5)
    assert papers_runs.uneven(image) == 0
    image[:32, :32], image[32:64, 32:64] = 0.95, 0.05
    assert papers_runs.uneven(image) == 0.5


def scored(**scores):
    return {"what": "", "trained": {}, "scores": scores}


def test_a_claim_holds_does_not_or_is_too_close():
    rows = {"a": scored(lol_psnr=12.0), "b": scored(lol_psnr=11.0), "c": scored(lol_psnr=12.05)}
    verdicts = [papers_tables.higher(rows, "better", "lol_psnr", *two).holds for two in ("ab", "ba", "ac")]
    assert verdicts == [True, False, None]
    claim = papers_tables.higher(rows, "better", "lol_psnr", "b", "a")
    text = papers_tables.judged([claim])
    assert "| better | LOL PSNR: 11.00 against 12.00 | **does not hold** |" in text


def record_of_all(folder, **changes):
    """A record of every row; `changes` are scores of the row of RUAS(3)."""
    names = {name for names, _ in papers_tables.TABLES.values() for name in names}
    trained = {"photographs": 9, "size": 96, "batch": 4, "steps": 7, "processor_s": 3.0}
    rows = {}
    for place, name in enumerate(sorted(names)):
        scores = dict.fromkeys(papers_tables.FORMS, 1 + place)
        if name in (papers_sci.CALIBRATED, papers_sci.UNCALIBRATED):
            scores["stages"] = [[1.0, 2.0, 3.0], [2.0, 4.0, 4.0]]
        rows[name] = {"what": "", "trained": trained, "scores": scores, "commit": "abc"}
    rows["RUAS(3)"]["scores"].update(changes)
    (folder / "papers.json").write_text(json.dumps({"facts": {"torch": "2"}, "rows": rows}))
    return rows


def blocks(folder):
    return {name: make(folder) for name, make in papers_tables.BLOCKS.items()}


def test_the_page_is_made_of_the_record(tmp_path):
    record_of_all(tmp_path, lol_psnr=3.0, over=77.0)
    before = blocks(tmp_path)
    record_of_all(tmp_path, lol_psnr=99.0, over=0.0)
    after = blocks(tmp_path)
    assert {name for name in before if before[name] != after[name]} - {"papers-summary"} == {"papers-ruas"}
    assert "| 7 steps of 4 × 96², 3 s |" in after["papers-ruas"]
    assert "| 99.00 |" in after["papers-ruas"]
    assert "against 99.00 | **does not hold** |" in after["papers-ruas"]
    assert "9 photographs" in after["papers-facts"]


def test_a_record_that_was_interrupted_says_what_is_missing(tmp_path):
    rows = record_of_all(tmp_path)
    del rows["RUAS(1)"]
    content = {"facts": {}, "rows": rows}
    (tmp_path / "papers.json").write_text(json.dumps(content))
    found = blocks(tmp_path)
    assert "Not measured yet: RUAS(1)." in found["papers-ruas"]
    assert "the paper says" not in found["papers-ruas"]
    assert "the paper says" in found["papers-blocks"]
    # of which no paper says anything
    assert "the paper says" not in found["nerco-width"]
    # whose picture shows that row
    assert "papers-sci.jpg" not in found["papers-stages"]
    assert "(papers-nerco.jpg)" in found["papers-nerco"]
    (tmp_path / "papers.json").write_text(json.dumps({"facts": {}, "rows": {}}))
    assert "Nothing is measured yet" in blocks(tmp_path)["papers-facts"]
    assert papers_tables.stages_chart(tmp_path) is None


def test_the_stages_are_drawn(tmp_path):
    record_of_all(tmp_path)
    chart = papers_tables.stages_chart(tmp_path)
    # a line for each of two pictures and one for their mean, in two panels
    assert chart.count('fill="none"') == 6
    # the first stage lies at no distance, and the largest distance at the top
    assert f"M44.0 {26 + 200:.1f}" in chart
    assert ">4</text>" in chart


def test_what_the_page_shows_is_there():
    for name in re.findall(
        r"\]\((papers-[^)]+)\)", (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    ):
        assert (ROOT / "docs" / name).exists(), f"{name} is missing: run python benchmarks/papers.py --draw"


def test_names_that_are_long_are_broken():
    assert (
        papers_pictures.broken("Zero-DCE without spatial consistency")
        == "Zero-DCE without\nspatial consistency"
    )


def test_sheets_are_drawn_of_what_was_kept(shared, tmp_path):
    pictures = papers_runs.Pictures(shared, tmp_path)
    rows = papers_tables.SHEETS["papers-losses.jpg"]
    for row in rows:
        papers_runs.strip(pictures.shown()).save(papers_runs.picture_of(tmp_path, row))
    lines = list(papers_pictures.draw(pictures, rows[1:], tmp_path))
    assert lines[1] == f"left out: papers-losses.jpg, for there are no pictures of {rows[0]}"
    lines = list(papers_pictures.draw(pictures, rows, tmp_path))
    assert lines[1] == "written: papers-losses.jpg"
    assert lines[0].startswith("left out: papers-sci.jpg, for there are no pictures of SCI, 1 block")
    with Image.open(tmp_path / "papers-losses.jpg") as sheet:
        # what was given stands above them
        assert sheet.height > (len(rows) + 1) * methods_pictures.SHOWN[1]
