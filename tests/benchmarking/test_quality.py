"""The figures of the table of quality, on pictures whose answer is known, and how its record is kept."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import refused

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "benchmarks" / "quality.py").exists():
    pytest.skip("benchmarks/ is not here", allow_module_level=True)
if str(ROOT / "benchmarks") not in sys.path:
    sys.path.insert(0, str(ROOT / "benchmarks"))

import instead  # noqa: E402
import quality  # noqa: E402
import quality_scores  # noqa: E402
import quality_sets  # noqa: E402
import record  # noqa: E402
from PIL import Image  # noqa: E402

import fastllie  # noqa: E402

OURS = ("zerodce", "zerodce++", "strong", "mild", "enlightengan", "nerco", "logits", "dawn")


def blurred(image, radius):
    """The mean of a square around each pixel, as far as there is picture."""
    made = image
    for axis in (0, 1):
        count = made.shape[axis]
        sums = np.concatenate([np.zeros_like(made.take([0], axis)), made.cumsum(axis)], axis)
        last = np.minimum(np.arange(count) + radius + 1, count)
        first = np.maximum(np.arange(count) - radius, 0)
        shape = [-1 if place == axis else 1 for place in range(3)]
        made = (sums.take(last, axis) - sums.take(first, axis)) / (last - first).reshape(shape)
    return made


def same(image):
    return image


def sharpened(image):
    return quality_sets.rounded(2 * image - blurred(image, 4))


def evened(image):
    """As a network that sees far does it: each place by what is around it."""
    return quality_sets.rounded(image * 0.4 / blurred(image, 60))


# --- halos


def test_a_curve_makes_no_halo():
    for enhance in (same, instead.gamma, lambda image: quality_sets.rounded(0.2 + 0.5 * image)):
        assert quality_scores.halo(enhance) == pytest.approx(0, abs=1e-9)


def test_what_looks_around_makes_a_halo():
    # at the edge alone, and far from it
    assert quality_scores.halo(sharpened) > 20
    assert quality_scores.halo(evened) > 50
    pytest.importorskip("cv2")
    assert quality_scores.halo(instead.clahe) > 3


def test_our_enlightengan_hardly_turns_back_beside_an_edge():
    network = fastllie.load("enlightengan")
    enhance = quality_sets.enhancer(network)
    falls = [quality_scores.reversal(enhance(image), distance) for image, distance in quality_scores.edges()]
    # where a plateau lies between two bytes, the faintest rim becomes a level
    assert np.mean(falls) < 0.5
    assert max(falls) < 1.05


def test_edges_are_of_both_kinds_and_a_third_is_before_two():
    found = list(quality_scores.edges())
    assert len(found) == 36
    shares = []
    for image, distance in found:
        assert image.shape == (*quality_scores.EDGE_SIZE, 3)
        assert np.array_equal(np.rint(image * 255) / 255, image)
        grey = image[..., 0]
        far = np.abs(distance) > 4
        assert (grey[far & (distance < 0)] == grey.min()).all()
        assert (grey[far & (distance > 0)] == grey.max()).all()
        assert grey.max() - grey.min() > 0.4
        shares.append((distance < 0).mean())
    assert sum(share == pytest.approx(1 / 3, abs=0.005) for share in shares) == 18
    assert sum(share == pytest.approx(2 / 3, abs=0.005) for share in shares) == 18


def test_a_reversal_is_counted_in_levels_on_either_side_and_not_at_the_border():
    for image, distance in quality_scores.edges():
        for band, change in (((-6, -3), -0.1), ((3, 6), 0.1)):
            bent = image.copy()
            bent[(distance > band[0]) & (distance < band[1])] += change
            assert quality_scores.reversal(bent, distance) > 0.5 * 25.5
        framed = image.copy()
        framed[: quality_scores.EDGE_MARGIN] = framed[:, : quality_scores.EDGE_MARGIN] = 0.7
        assert quality_scores.reversal(framed, distance) == pytest.approx(0, abs=1e-9)
    image, distance = next(quality_scores.edges())
    image = image.copy()
    image[distance > 20] -= 10 / 255
    assert quality_scores.reversal(image, distance) == pytest.approx(10)


# --- colour and shadows


def test_chroma_of_known_colours():
    assert quality_scores.mean_chroma(np.full((4, 4, 3), 0.3)) == pytest.approx(0, abs=0.01)
    red = np.zeros((4, 4, 3))
    red[..., 0] = 1
    # CIELAB of sRGB's red is (53.2, 80.1, 67.2)
    assert quality_scores.mean_chroma(red) == pytest.approx(np.hypot(80.1, 67.2), abs=0.2)


def scene(dark, bright, height=30, width=40):
    """A third of it dark, a tenth bright, grey between."""
    grey = np.full(height * width, 0.3)
    grey[: grey.size // 3] = dark
    grey[-(grey.size // 10) :] = bright
    mixed = np.random.default_rng(0).permutation(grey).reshape(height, width)
    return np.repeat(mixed[..., None], 3, -1)


def test_which_pictures_are_backlit():
    assert quality_scores.backlit(scene(0.05, 0.8))
    for dark, bright in ((0.05, 0.5), (0.15, 0.8), (0.005, 0.8)):
        assert not quality_scores.backlit(scene(dark, bright))


def test_shadows_are_the_inputs_darkest_third():
    image = scene(0.05, 0.8)
    assert quality_scores.darkest_third(image).sum() == image[..., 0].size // 3
    assert quality_scores.shadow_lift(image, image) == 1
    assert quality_scores.shadow_lift(np.where(image < 0.1, 3 * image, image), image) == pytest.approx(3)
    # brighter pixels elsewhere count for nothing, and darkened ones do not become the shadows
    assert quality_scores.shadow_lift(np.where(image > 0.1, 0.01, image), image) == pytest.approx(1)
    # a third of one luma is some third of it
    flat = np.full((6, 6, 3), 0.05)
    assert quality_scores.darkest_third(flat).sum() == 12


# --- the sets


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)


@pytest.fixture
def shared(tmp_path):
    """Backlit pictures among others, and two well-exposed photographs: one coloured, one nearly grey."""
    data = tmp_path / "data"
    save(data / "unpaired" / "DICM" / "backlit.png", scene(0.05, 0.8))
    save(data / "unpaired" / "DICM" / "dark.png", scene(0.02, 0.3))
    save(data / "unpaired" / "NPE" / "street.png", scene(0.08, 0.9))
    for name in ("a", "b"):
        random = np.random.default_rng(ord(name)).uniform(0.3, 0.7, (30, 40, 3))
        grey = random.mean(-1, keepdims=True)
        save(data / "free_photos" / f"{name}.png", grey + (random - grey) * (1.0 if name == "a" else 0.05))
    rows = ["file,mean_luma", "a.png,0.5", "b.png,0.5", "dark.png,0.1"]
    (data / "free_photos" / "photos.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_the_columns_of_a_set_are_what_it_measures(shared):
    for measure_set in (quality_sets.of_backlit, quality_sets.of_well_exposed, quality_sets.of_synthetic):
        assert measure_set(instead.gamma, shared, 1).keys() == set(quality_sets.SETS[measure_set])
    columns = [name for names in quality_sets.SETS.values() for name in names]
    assert sorted(columns) == sorted(quality_sets.COLUMNS)


def test_only_the_wanted_columns_are_measured(shared):
    # no pairs are there, and nobody asks for them
    found = quality_sets.score(same, shared, wanted=("saturation", "shadows"))
    assert list(found) == ["shadows", "saturation"]
    assert found == {"shadows": pytest.approx(1), "saturation": pytest.approx(0)}
    with pytest.raises(FileNotFoundError):
        quality_sets.score(same, shared, wanted=("lol_psnr",))


def test_shadows_by_the_geometric_mean_and_saturation_by_all_chroma(shared):
    names = [path.name for path in quality_sets.backlit_pictures(shared)]
    assert names == ["backlit.png", "street.png"]

    def lifted(image):
        # by 2 where the darkest are at 0.05, by 4.5 where they are at 0.08
        return np.clip(image * (2 if image.min() < 0.06 else 4.5), 0, 1)

    found = quality_sets.of_backlit(lifted, shared, 1)["shadows"]
    assert found == pytest.approx(3, rel=1e-6)

    def vivid(image):
        grey = image.mean(-1, keepdims=True)
        # the one that is nearly grey hardly counts
        return grey + (image - grey) * (1.2 if np.ptp(image) > 0.2 else 5)

    assert 10 < quality_sets.of_well_exposed(vivid, shared, 1)["saturation"] < 50
    grey = quality_sets.of_well_exposed(lambda image: image.mean(-1, keepdims=True).repeat(3, -1), shared, 1)
    assert grey["saturation"] == pytest.approx(-100, abs=0.1)


# --- the record


def full_row(value=1.0):
    return dict.fromkeys(quality_sets.COLUMNS, value)


def a_table(**rows):
    return quality.Table(dict(rows), dict.fromkeys(rows, 5.0), {})


def test_a_row_without_a_column_is_not_kept():
    partial = {name: value for name, value in full_row().items() if name != "halo"}
    table = a_table(whole=full_row(), partial=partial, unknown={**full_row(), "mood": 1.0})
    assert table.lacking([], (), False) == ["partial", "unknown"]
    assert table.lacking(["partial"], ("halo",), False) == ["unknown"]
    assert table.lacking(["partial"], ("rise",), False) == ["partial", "unknown"]
    table = a_table(whole=full_row())
    table.times.clear()
    assert table.lacking([], (), False) == ["whole"]
    assert table.lacking(["whole"], (), True) == []


def test_what_is_measured_takes_the_place_of_what_was_kept():
    table = quality.Table({"a": {}, "b": {}}, {}, {})
    facts = {"commit": "two", quality.KEPT: "one"}
    rows = {"a": full_row(), "b": full_row(), "gone": full_row()}
    table.keep({"rows": rows, "processor_ms": dict.fromkeys(rows, 7.0), "facts": facts})
    assert table.facts == {quality.KEPT: "one, two"}
    assert table.rows.keys() == {"a", "b"}
    table.add("a", {"halo": 9.0}, None)
    assert table.rows["a"] == {**full_row(), "halo": 9.0}
    assert list(table.rows["a"]) == list(quality_sets.COLUMNS)
    assert table.times == {"a": 7.0, "b": 7.0}
    table.add("b", {}, 3.0)
    assert table.times == {"a": 7.0, "b": 3.0}


def test_the_command_refuses_a_record_that_would_lack_columns(tmp_path, monkeypatch):
    rows = {name: {"lol_psnr": 1.0} for name in instead.INSTEAD}
    content = {"facts": {"commit": "one"}, "rows": rows, "processor_ms": {}}
    (tmp_path / "quality.json").write_text(json.dumps(content))
    monkeypatch.setattr(sys, "argv", ["quality.py", "--only", "gamma", "-o", str(tmp_path)])
    with refused(SystemExit, "no row to keep with every column of", "LIME"):
        quality.main()
    assert json.loads((tmp_path / "quality.json").read_text()) == content


def test_the_committed_record_has_every_row_and_column():
    found = json.loads((record.RESULTS / "quality.json").read_text(encoding="utf-8"))
    assert found["columns"] == quality_sets.COLUMNS
    named = [candidate.name for candidate in quality.candidates(Path(), dict.fromkeys(OURS))]
    assert list(found["rows"]) == named
    assert found["processor_ms"].keys() == set(named)
    assert all(row.keys() == quality_sets.COLUMNS.keys() for row in found["rows"].values())
