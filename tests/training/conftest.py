"""What all tests of training have."""

import pytest
import torch
from helpers import picture
from safetensors.torch import save_file


@pytest.fixture(autouse=True)
def one_thread():
    """Such small pictures are not worth a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory):
    from test_clip import random_clip

    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file(random_clip(), path)
    return path


@pytest.fixture
def sides(tmp_path):
    """Two folders of three photographs each, dark ones and of normal light, that are no pairs."""
    for side, brightest in (("low", 60), ("normal", 255)):
        (tmp_path / side).mkdir()
        for index in range(3):
            picture(index, (44, 40), brightest).save(tmp_path / side / f"{side}{index}.png")
    return tmp_path / "low", tmp_path / "normal"
