"""The weights that ship are made again, and have their card."""

import json
import re
import shutil
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from helpers import attributed_photographs
from safetensors import safe_open

import fastllie
from fastllie.models import ZeroDCE, ZeroDCEPlusPlus
from fastllie.training import recipes, reproduce
from fastllie.training.data import Photograph
from fastllie.training.record import card

SCORES = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "quality.json"


@pytest.fixture
def photos(tmp_path):
    return attributed_photographs(tmp_path / "photos")


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
    assert "(photographs.md)" in text
    listed = weights.with_name("photographs.md").read_text()
    assert "| 1.png | Author 1 | CC-BY-4.0 |" in listed
    assert "3.png" not in listed
    assert f"| {title} ours | 1.250 |" in text
    assert "Other" not in text
    names = ["photographs.md", weights.stem, weights.with_suffix(".md").name, weights.name]
    assert sorted(path.name for path in weights.parent.iterdir()) == sorted(names)
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
def test_shipped_weights_are_of_the_recipe_here_and_have_a_card(method, variant, tmp_path):
    file = next(entry.file for entry in fastllie.info(method).weights if entry.name == variant)
    weights = Path(fastllie.__file__).parent / "weights" / file
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    same_recipe(recipes.SHIPPED[method][variant], json.loads(metadata["recipe"]))
    text = weights.with_suffix(".md").read_text(encoding="utf-8")
    photographs = listed_photographs(weights.with_name(card.PHOTOGRAPHS))
    assert len(photographs) == json.loads(metadata["run"])["photographs"]
    assert f"{card.TITLES[method]} ours" in text
    if not SCORES.exists():
        pytest.skip("the scores are not here")
    # the card is what is made of the file, the list of photographs and the recorded scores
    copy = tmp_path / weights.name
    shutil.copy(weights, copy)
    made = card.write_card(copy, photographs, SCORES)
    assert made.read_text(encoding="utf-8") == text
    listed = weights.with_name(card.PHOTOGRAPHS).read_text(encoding="utf-8")
    assert (tmp_path / card.PHOTOGRAPHS).read_text(encoding="utf-8") == listed


def listed_photographs(path):
    rows = re.findall(r"^\| (\S+) \| (.*) \| (.*) \|$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [Photograph(*row) for row in rows if row[0] not in ("file", "---")]


def test_a_list_of_other_photographs_has_a_name_of_its_own(tmp_path):
    first, second = [Photograph("a.jpg", "A", "CC-BY-4.0")], [Photograph("b.jpg")]
    names = [card.write_photographs(tmp_path, photographs, "mine") for photographs in (first, first, second)]
    assert names == ["photographs.md", "photographs.md", "mine-photographs.md"]
    assert "| b.jpg | not stated | not stated |" in (tmp_path / "mine-photographs.md").read_text()


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
