"""`Brighten` in the pipelines of albumentations."""

import os
import pickle
import sys

import numpy as np
import pytest
from helpers import RGB, refused

import fastllie

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the registry
A = pytest.importorskip("albumentations", exc_type=ImportError)
from fastllie.transforms.albumentations import Brighten  # noqa: E402

WANTED = fastllie.enhance(RGB, "sci")


def test_in_a_pipeline_boxes_and_masks_stay():
    pipeline = A.Compose(
        [A.HorizontalFlip(p=1), Brighten("sci")],
        bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"]),
    )
    mask = np.arange(13 * 18, dtype=np.uint8).reshape(13, 18)
    result = pipeline(image=RGB, mask=mask, bboxes=[[1, 2, 8, 9]], labels=[4])
    assert np.array_equal(result["image"], fastllie.enhance(RGB[:, ::-1].copy(), "sci"))
    assert np.array_equal(result["mask"], mask[:, ::-1])
    assert np.allclose(result["bboxes"], [[10, 2, 17, 9]])


def test_floats_and_options():
    step = Brighten("zerodce++", options={"scale": 2}, strength=0.5)
    given = RGB.astype(np.float32) / 255
    result = step(image=given)["image"]
    assert result.dtype == np.float32
    assert np.array_equal(result, fastllie.enhance(given, "zerodce++", scale=2, strength=0.5))


def test_strength_is_drawn_from_a_range_by_the_seed():
    def drawn(seed):
        return A.Compose([Brighten("sci", strength=(0.2, 0.8))], seed=seed)(image=RGB)["image"]

    assert np.array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))
    assert drawn(1).dtype == np.uint8
    low, high = (fastllie.enhance(RGB, "sci", strength=end).astype(int) for end in (0.2, 0.8))
    assert (drawn(3) >= np.minimum(low, high) - 1).all()
    assert (drawn(3) <= np.maximum(low, high) + 1).all()


def test_never_where_it_is_improbable():
    assert np.array_equal(Brighten("sci", p=0)(image=RGB)["image"], RGB)


@pytest.mark.parametrize("way", ["dict", "json", "pickle"])
def test_a_pipeline_is_written_and_read(way, tmp_path):
    pipeline = A.Compose([Brighten("sci", weights="mild", strength=0.5, p=1)])
    if way == "dict":
        again = A.from_dict(A.to_dict(pipeline))
    elif way == "json":
        A.save(pipeline, tmp_path / "pipeline.json")
        again = A.load(tmp_path / "pipeline.json")
    else:
        again = pickle.loads(pickle.dumps(pipeline))
    wanted = fastllie.enhance(RGB, "sci", weights="mild", strength=0.5)
    assert np.array_equal(again(image=RGB)["image"], wanted)


def test_errors(monkeypatch):
    with refused(ValueError, "unknown method"):
        Brighten("scii")
    with refused(ValueError, "strength must be a number in [0, 1], or two of them in order"):
        Brighten("sci", strength=(0.9, 0.1))
    monkeypatch.setitem(sys.modules, "albumentations", None)
    monkeypatch.delitem(sys.modules, "fastllie.transforms.albumentations")
    with refused(ImportError, 'pip install "fastllie[albumentations]"'):
        __import__("fastllie.transforms.albumentations")
