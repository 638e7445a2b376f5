"""What all tests of training have."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Such small pictures are not worth a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
