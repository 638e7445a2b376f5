"""The examples for other people's tools, loaded or run as those would."""

import importlib.util
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import RGB
from PIL import Image

import fastllie

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("examples/ is not here", allow_module_level=True)


@pytest.fixture
def node(monkeypatch):
    """The node as ComfyUI loads it: a folder of `custom_nodes/`, beside ComfyUI's own modules."""
    comfy = ModuleType("comfy")
    comfy.model_management = ModuleType("comfy.model_management")
    comfy.model_management.get_torch_device = lambda: torch.device("cpu")
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    monkeypatch.setitem(sys.modules, "comfy.model_management", comfy.model_management)
    spec = importlib.util.spec_from_file_location(
        "custom_nodes_fastllie", EXAMPLES / "comfyui" / "__init__.py"
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    assert module.NODE_CLASS_MAPPINGS.keys() == module.NODE_DISPLAY_NAME_MAPPINGS.keys()
    return module.NODE_CLASS_MAPPINGS["BrightenWithFastllie"]


def test_the_node_of_comfyui(node):
    wanted = node.INPUT_TYPES()["required"]
    assert wanted["method"][0] == fastllie.list_methods()
    given = {name: kind[1]["default"] for name, kind in wanted.items() if len(kind) > 1}
    given["method"] = "sci"
    image = torch.rand(2, 9, 11, 3) * 1.004
    (result,) = getattr(node(), node.FUNCTION)(image=image, **given)
    assert result.shape == image.shape
    assert node.RETURN_TYPES == ("IMAGE",)
    assert result.is_contiguous()
    same = fastllie.enhance(image.clamp(0, 1).movedim(-1, 1), "sci").movedim(1, -1)
    torch.testing.assert_close(result, same)
    alpha = torch.rand(1, 9, 11, 4)
    (result,) = node().brighten(alpha, "sci", 0.5, weights="mild")
    assert torch.equal(result[..., 3], alpha[..., 3])
    wanted = fastllie.enhance(alpha[0, ..., :3].movedim(-1, 0), "sci", weights="mild", strength=0.5)
    torch.testing.assert_close(result[0, ..., :3].movedim(-1, 0), wanted)


def environment():
    found = os.pathsep.join([str(Path(fastllie.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": found}


def ffmpeg():
    """The program, or that of the package imageio-ffmpeg."""
    if found := shutil.which("ffmpeg"):
        return found
    return pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg here").get_ffmpeg_exe()


def test_frames_between_two_programs(tmp_path):
    for place in range(3):
        Image.fromarray(np.roll(RGB, place, 0)).save(tmp_path / f"{place}.png")
    read = [ffmpeg(), "-v", "error", "-i", tmp_path / "%d.png", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    script = [sys.executable, EXAMPLES / "pipe_frames.py", "18", "13", "sci"]
    write = [ffmpeg(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "18x13", "-i", "-"]
    reader = subprocess.Popen(list(map(str, read)), stdout=subprocess.PIPE)
    brightener = subprocess.Popen(
        list(map(str, script)), stdin=reader.stdout, stdout=subprocess.PIPE, env=environment()
    )
    subprocess.run([*write, str(tmp_path / "out-%d.png")], stdin=brightener.stdout, check=True, timeout=120)
    assert (reader.wait(10), brightener.wait(10)) == (0, 0)
    for place in range(3):
        made = np.asarray(Image.open(tmp_path / f"out-{place + 1}.png"))
        assert np.array_equal(made, fastllie.enhance(np.roll(RGB, place, 0), "sci"))


@pytest.fixture
def served():
    """The address of the server in an own process, with one thread of requests at a time."""
    pytest.importorskip("litserve")
    import httpx

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "serve.py"), "sci", str(port)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, process.stdout.read().decode()
            try:
                if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield address
    finally:
        # the server and the workers that it has started
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_server_under_load(served):
    """Forty requests, eight at once: each gets its own picture."""
    import httpx

    contents = []
    for place in range(5):
        content = io.BytesIO()
        Image.fromarray(np.roll(RGB, place, 0)[: 13 - place // 3]).save(content, "PNG")
        contents.append(content.getvalue())

    def ask(place):
        files = {"request": ("night.png", contents[place % 5], "image/png")}
        return httpx.post(f"{served}/brighten", files=files, timeout=60)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(40)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["content-type"] for answer in answers} == {"image/jpeg"}
    for place in range(40):
        given = np.asarray(Image.open(io.BytesIO(contents[place % 5])))
        expected = io.BytesIO()
        Image.fromarray(fastllie.enhance(given, "sci")).save(expected, "JPEG", quality=95)
        made, wanted = (
            np.asarray(Image.open(io.BytesIO(c))) for c in (answers[place].content, expected.getvalue())
        )
        assert np.array_equal(made, wanted)
    refused = httpx.post(f"{served}/brighten", files={"request": ("a.txt", b"no picture")}, timeout=60)
    assert refused.status_code == 400
    assert "not an image" in refused.text
    large = {"request": ("large.png", bytes(20_000_001), "image/png")}
    assert httpx.post(f"{served}/brighten", files=large, timeout=60).status_code == 413
    # one refused request leaves the next one alone
    assert ask(0).status_code == 200


def test_a_stream_that_ends_within_a_frame(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("pipe_frames", EXAMPLES / "pipe_frames.py")
    pipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pipe)
    sink = io.BytesIO()
    with pytest.raises(SystemExit, match="the stream ends within a frame: 5 of 702 bytes"):
        pipe.main("18", "13", source=io.BytesIO(RGB.tobytes() + b"12345"), sink=sink)
    assert sink.getvalue() == fastllie.enhance(RGB, "sci").tobytes()
