"""`Brighten` in the pipelines of torchvision v2, and without torchvision."""

import collections
import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import real_packages
import torch
from helpers import RGB, refused
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import fastllie
from fastllie.transforms import Brighten

BYTES = torch.from_numpy(RGB).permute(2, 0, 1)
WANTED = fastllie.enhance(BYTES, "sci")


class StandIn(Tensor):
    """In the form of a torchvision tensor: a subclass that knows its own kind."""


class Boxes(StandIn):
    pass


@pytest.fixture
def tv_tensors(monkeypatch):
    """What the module looks for, where torchvision itself is not installed."""
    module = ModuleType("torchvision.tv_tensors")
    module.Image = type("Image", (StandIn,), {})
    module.Video = type("Video", (StandIn,), {})
    module.wrap = lambda tensor, *, like: tensor.as_subclass(type(like))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_tensors_and_pictures():
    step = Brighten("sci")
    assert torch.equal(step(BYTES), WANTED)
    picture = Image.fromarray(RGB)
    assert np.array_equal(np.asarray(step(picture)), np.asarray(fastllie.enhance(picture, "sci")))
    assert list(step.parameters()) == []
    assert "Enhancer('sci'" in repr(step)


def test_in_a_sequence_of_modules():
    double = nn.Sequential(Brighten("zerodce++", scale=2), nn.Identity(), Brighten("sci", strength=0.5))
    first = fastllie.enhance(BYTES / 255, "zerodce++", scale=2)
    assert torch.equal(double(BYTES / 255), fastllie.enhance(first, "sci", strength=0.5))


def test_of_a_sample_only_the_image_changes(tv_tensors):
    image, boxes = BYTES.as_subclass(tv_tensors.Image), torch.ones(2, 4).as_subclass(Boxes)
    sample = {"boxes": boxes, "plain": torch.ones(3, 5, 5), "image": image, "label": 3, "more": [image]}
    result = Brighten("sci")(sample)
    assert type(result["image"]) is tv_tensors.Image
    assert torch.equal(result["image"].as_subclass(Tensor), WANTED)
    assert torch.equal(result["more"][0].as_subclass(Tensor), WANTED)
    assert all(result[name] is sample[name] for name in ("boxes", "plain", "label"))
    assert torch.equal(sample["image"].as_subclass(Tensor), BYTES)


def test_the_first_plain_tensor_is_the_image_where_there_is_no_other():
    second = torch.ones(3, 4, 4)
    result = Brighten("sci")(BYTES, {"target": second})
    assert torch.equal(result[0], WANTED)
    assert result[1]["target"] is second


def test_containers_stay_what_they_are():
    pair = collections.namedtuple("pair", "image label")
    given = collections.defaultdict(list, {"x": pair(BYTES, 7)})
    result = Brighten("sci")(given)
    assert type(result) is collections.defaultdict
    assert result.default_factory is list
    assert type(result["x"]) is pair
    assert result["x"].label == 7
    assert torch.equal(result["x"].image, WANTED)


def test_errors():
    with refused(TypeError, "Brighten found no image", "str, int"):
        Brighten("sci")("label", 3)
    with refused(TypeError, "Brighten found no image", "ndarray"):
        Brighten("sci")(RGB)
    with refused(ValueError, "unknown method"):
        Brighten("scii")


class Pictures(Dataset):
    def __init__(self, step):
        self.step = step

    def __len__(self):
        return 2

    def __getitem__(self, place):
        return self.step(BYTES)


def test_pickled_and_in_workers():
    step = pickle.loads(pickle.dumps(Brighten("sci", strength=0.5)))
    assert torch.equal(step(BYTES), fastllie.enhance(BYTES, "sci", strength=0.5))
    (batch,) = DataLoader(Pictures(step), batch_size=2, num_workers=1, multiprocessing_context="fork")
    assert torch.equal(batch, torch.stack([step(BYTES)] * 2))


def test_in_a_pipeline_of_torchvision():
    real_packages.torchvision()
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    boxes = tv_tensors.BoundingBoxes([[1, 2, 8, 9]], format="XYXY", canvas_size=(13, 18))
    mask = tv_tensors.Mask(torch.ones(13, 18, dtype=torch.uint8))
    pipeline = v2.Compose(
        [v2.RandomHorizontalFlip(1), Brighten("sci"), v2.ToDtype(torch.float32, scale=True)]
    )
    image, target = pipeline(tv_tensors.Image(BYTES), {"boxes": boxes, "masks": mask, "labels": [1]})
    assert type(image) is tv_tensors.Image
    torch.testing.assert_close(
        image.as_subclass(Tensor) * 255, fastllie.enhance(BYTES.flip(-1), "sci").float()
    )
    assert target["boxes"].tolist() == [[10, 2, 17, 9]]
    assert type(target["boxes"]) is tv_tensors.BoundingBoxes
    assert torch.equal(target["masks"], mask)
    video = tv_tensors.Video(torch.stack([BYTES] * 3)[None])
    result = v2.RandomApply([Brighten("sci")], p=1.0)(video)
    assert type(result) is tv_tensors.Video
    assert torch.equal(result.as_subclass(Tensor), torch.stack([WANTED] * 3)[None])
    # whatever v2 passes over, this does too
    picture = Image.fromarray(RGB)
    kept = torch.zeros(3, 4, 4)
    assert v2.Compose([Brighten("sci"), v2.PILToTensor()])(picture, kept)[1] is kept
