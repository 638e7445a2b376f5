"""What all tests of training have."""

import pytest
import torch
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
