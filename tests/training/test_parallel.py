"""Several processes train as one."""

import os
import socket
from pathlib import Path

import pytest
import torch
from test_trainer import Batches, Log, fresh

from fastllie.training.parallel import join
from fastllie.training.trainer import Hooks, Pace, fit


def test_alone_without_torchrun(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    parallel = join("cpu")
    assert (parallel.rank, parallel.world, parallel.device.type) == (0, 1, "cpu")
    value = torch.ones(3)
    parallel.sum_([value])
    assert value.tolist() == [1, 1, 1]
    assert parallel.any(True)
    assert not parallel.any(False)


@pytest.mark.parametrize(("device", "told"), [("cpuu", "unknown device"), ("meta", "cpu or cuda")])
def test_devices_that_cannot_train_are_named(device, told):
    with pytest.raises(ValueError, match=told):
        join(device)


def test_a_missing_gpu_is_named():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="there is no device cuda:0"):
        join("cuda")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def _rank(rank, world, place, output):
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=place,
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=str(rank),
    )
    parallel = join("cpu")
    try:
        task = fresh(parallel=parallel)
        log = Log()
        fit(task, Batches(3), 4, pace=Pace(log_every=1), hooks=Hooks(log))
    finally:
        parallel.close()
    torch.save({"result": task.result(), "log": log.lines, "left": _gloo_threads()}, output / f"{rank}.pt")


def _gloo_threads():
    """Threads of the process group, which would abort the process at its end now and then."""
    tasks = Path("/proc/self/task")
    names = [(task / "comm").read_text() for task in tasks.iterdir()] if tasks.is_dir() else []
    return [name for name in names if "gloo" in name]


def test_two_processes_equal_one_that_takes_two_parts(tmp_path):
    threads = torch.get_num_threads()
    torch.multiprocessing.spawn(_rank, (2, str(free_port()), tmp_path), 2)
    torch.set_num_threads(1)
    try:
        alone, log = fresh(), Log()
        fit(alone, Batches(3), 4, pace=Pace(log_every=1), hooks=Hooks(log), accumulate=2)
    finally:
        torch.set_num_threads(threads)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert second["log"] == []
    assert first["left"] == second["left"] == []
    for name, value in alone.result().items():
        assert torch.equal(first["result"][name], value), name
        assert torch.equal(second["result"][name], value), name
    assert first["log"] == [(step, values, images) for step, values, images in log.lines]
