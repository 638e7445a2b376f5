"""`enhance` and `Enhancer`: arguments, tiles, batches, streams, the cache of networks, and the import."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from helpers import RGB, refused, same_levels, unit, write_weights
from PIL import Image
from serving import HOME

import fastllie
from fastllie import api
from fastllie.inference import loading
from fastllie.inference.tiles import tiled
from fastllie.ops.backend import choose

pytestmark = pytest.mark.usefixtures("random_weights")

# the copy of fastllie that these tests run on, for processes of their own


# --- strength, options, devices


def test_strength():
    x = unit()
    full = fastllie.enhance(x)
    torch.testing.assert_close(fastllie.enhance(x, strength=0.25), x + 0.25 * (full - x), rtol=0, atol=1e-6)
    assert torch.equal(fastllie.enhance(x, strength=0), x)
    assert torch.equal(fastllie.enhance(x, strength=1), full)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_out_of_range(strength):
    with refused(ValueError, f"strength must lie in [0, 1], got {strength}"):
        fastllie.enhance(RGB, strength=strength)
    with refused(TypeError, "strength must be a number, got str"):
        fastllie.enhance(RGB, strength="full")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with CUDA")
def test_a_device_that_is_not_there():
    with refused(ValueError, "device 'cuda' is not there: torch sees 0 CUDA devices"):
        fastllie.enhance(RGB, device="cuda")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="a Mac")
def test_other_devices_that_are_not_there():
    # whatever torch says of them, and in whichever exception
    for device in ("mps", "xpu", torch.device("mps")):
        with refused(ValueError, f"device {str(device)!r} is not there: "):
            fastllie.enhance(RGB, device=device)
    with refused(ValueError, "device 'mps' is not there: "):
        fastllie.load("sci", device="mps")


def test_tensors_of_devices_without_kernels():
    x = torch.rand(1, 3, 4, 5, device="meta")
    with refused(ValueError, "image is a tensor on the device 'meta', which holds no values"):
        fastllie.enhance(x)
    with refused(ValueError, "device 'meta' holds no values"):
        fastllie.enhance(RGB, device="meta")
    # mps, xpu and others are served by torch's own operators, as long as nobody asks for kernels by name
    assert choose("auto", x) == "torch"
    with refused(RuntimeError, "backend 'cpu' needs tensors on 'cpu', got meta"):
        choose("cpu", x)


def test_other_wrong_arguments():
    with refused(ValueError, "unknown device 'gpu'; wanted 'cpu', 'cuda'"):
        fastllie.enhance(RGB, device="gpu")
    with refused(TypeError, "device must be a string, a torch.device or None, got int"):
        fastllie.load("zerodce", device=0)
    with refused(TypeError, "dtype must be one of", "got torch.int32"):
        fastllie.enhance(RGB, dtype=torch.int32)
    with refused(ValueError, "channels must be one of ('rgb', 'bgr'), got 'BGR'"):
        fastllie.enhance(RGB, channels="BGR")
    with refused(TypeError, "tile must be 'auto', None or an integer, got 1.5"):
        fastllie.enhance(RGB, tile=1.5)
    with refused(ValueError, "tile must be at least 1 pixel, got 0"):
        fastllie.enhance(RGB, tile=0)
    with refused(ValueError, "tile must be 'auto' or None, got 64", "the whole image"):
        fastllie.enhance(RGB, "zerodce++", scale=2, tile=64)


# --- tiles


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
@pytest.mark.parametrize("tile", [7, 12, 23, 64])
def test_tiles_change_nothing(tmp_path, method, padding, tile):
    path = write_weights(tmp_path / "w.safetensors", method, padding=padding)
    x = torch.rand(2, 3, 23, 19, generator=torch.Generator().manual_seed(0))
    whole = fastllie.enhance(x, method, weights=path, tile=None)
    got = fastllie.enhance(x, method, weights=path, tile=tile)
    torch.testing.assert_close(got, whole, rtol=0, atol=1e-6)


def test_tiles_of_one_pixel():
    x = torch.rand(1, 3, 4, 5)
    torch.testing.assert_close(fastllie.enhance(x, tile=1), fastllie.enhance(x, tile=None), rtol=0, atol=1e-6)


def test_auto_tiles_change_nothing():
    # Winograd rounds differently where its blocks lie differently
    x = torch.rand(1, 3, 210, 401)
    torch.testing.assert_close(fastllie.enhance(x), fastllie.enhance(x, tile=None), rtol=0, atol=2e-6)


def test_tiles_bound_what_goes_through_the_network():
    seen = []

    def model(x):
        seen.append(tuple(x.shape))
        return x + 1

    x = torch.rand(5, 3, 10, 9)
    for side in (10, 14, 9):
        assert torch.equal(tiled(model, x, side, 2), x + 1)
    # whole images one by one, two by two, and each in two equal tiles
    assert seen == [(1, 3, 10, 9)] * 5 + [(2, 3, 10, 9)] * 2 + [(1, 3, 10, 9)] + [(1, 3, 9, 9)] * 10


def test_images_whose_pixels_depend_on_the_whole_stay_whole():
    seen = []

    def model(x):
        seen.append(tuple(x.shape))
        return x + 1

    x = torch.rand(2, 3, 300, 300)
    assert torch.equal(tiled(model, x, "auto", None), x + 1)
    assert seen == [(1, 3, 300, 300)] * 2


# --- Enhancer


def test_batch_keeps_order_and_kinds(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(RGB).save(path)
    images = [
        RGB,
        torch.from_numpy(RGB[:5]).permute(2, 0, 1),
        path,
        Image.fromarray(RGB[..., 0]),
        unit().expand(2, -1, -1, -1),
        (RGB[:5] / 255).astype(np.float64),
    ]
    enhancer = fastllie.Enhancer()
    for got, image in zip(enhancer.batch(images), images, strict=True):
        want = fastllie.enhance(image)
        assert type(got) is type(want)
        np.testing.assert_allclose(
            np.asarray(got, np.float64), np.asarray(want, np.float64), rtol=0, atol=1e-6
        )
    assert enhancer.batch([]) == []


def test_batch_of_one_size_is_one_forward(monkeypatch):
    enhancer = fastllie.Enhancer("zerodce")
    network = loading.shared_network("zerodce", enhancer._run.path, torch.device("cpu"), torch.float32, {})
    seen = []
    hook = network.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    enhancer.batch([RGB, RGB[:7], RGB, RGB])
    hook.remove()
    assert sorted(seen) == [1, 3]


def test_batch_names_the_wrong_image():
    with refused(ValueError, "images[1]: image is an array of shape (4, 4); wanted"):
        fastllie.Enhancer().batch([RGB, np.zeros((4, 4), np.uint8)])
    with refused(TypeError, "images[0]: image is a int"):
        fastllie.Enhancer().batch([3])
    with refused(FileNotFoundError, "images[0]: no such image file"):
        fastllie.Enhancer().batch(["nowhere.png"])
    with refused(TypeError, "batch wants a list of images, got str"):
        fastllie.Enhancer().batch("photo.png")


def test_stream_gives_what_calls_give():
    enhancer = fastllie.Enhancer("zerodce++", strength=0.5)
    images = [RGB, Image.fromarray(RGB[:9]), unit(), RGB[:4]]
    got = list(enhancer.stream(iter(images)))
    assert [type(image) for image in got] == [np.ndarray, Image.Image, torch.Tensor, np.ndarray]
    for image, given in zip(got, images, strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(enhancer(given)))
    assert list(enhancer.stream([])) == []


def test_stream_reads_ahead_in_another_thread_but_not_far():
    taken, threads = [], set()

    def images():
        for place in range(20):
            taken.append(place)
            threads.add(threading.current_thread())
            yield RGB[:4]

    stream = fastllie.Enhancer().stream(images())
    assert taken == []
    next(stream)
    assert threading.current_thread() not in threads
    assert len(taken) <= 1 + api.AHEAD
    stream.close()
    assert len(taken) <= 2 + api.AHEAD
    assert all(not thread.is_alive() or thread.join(5) is None for thread in threads)


def test_stream_survives_a_producer_that_reuses_its_memory():
    frame = np.empty(RGB.shape, np.float32)

    def camera():
        for brightness in (0.1, 0.2, 0.3, 0.4):
            frame.fill(brightness)
            yield frame

    enhancer = fastllie.Enhancer()
    want = [enhancer(np.full_like(frame, brightness)) for brightness in (0.1, 0.2, 0.3, 0.4)]
    assert np.array_equal(list(enhancer.stream(camera())), want)


def test_stream_raises_where_the_result_would_have_come():
    enhancer = fastllie.Enhancer()
    stream = enhancer.stream([RGB, np.zeros((4, 4), np.uint8), RGB])
    next(stream)
    with refused(ValueError, "image is an array of shape (4, 4)"):
        next(stream)

    def broken():
        yield RGB
        raise OSError("the camera is gone")

    stream = enhancer.stream(broken())
    next(stream)
    with refused(OSError, "the camera is gone"):
        next(stream)
    with refused(TypeError, "not iterable"):
        enhancer.stream(3)


def test_compile(monkeypatch):
    compiled = []

    def compile_eagerly(model, **settings):
        compiled.append(model)
        return real(model, backend="eager", **settings)

    real = torch.compile
    monkeypatch.setattr(torch, "compile", compile_eagerly)
    enhancer = fastllie.Enhancer(compile=True)
    for image in (RGB, RGB[:6], RGB[:, :9]):
        assert same_levels(enhancer(image), fastllie.enhance(image).astype(int))
    assert len(compiled) == 1


def test_enhancer_says_what_it_is():
    assert repr(fastllie.Enhancer("zerodce++", scale=3)).startswith("Enhancer('zerodce++', scale=3, weights=")


def test_enhancer_reports_wrong_weights_at_once(tmp_path):
    (tmp_path / "w.pth").write_text("<html>")
    with refused(ValueError, "it is a web page"):
        fastllie.Enhancer(weights=tmp_path / "w.pth")


# --- the cache


@pytest.fixture
def builds(monkeypatch):
    """The networks that were built for the cache, which starts empty."""
    built = []
    real = loading.checkpoint.build

    def build(*arguments):
        built.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(loading, "_models", type(loading._models)())
    monkeypatch.setattr(loading.checkpoint, "build", build)
    return built


def test_a_network_is_loaded_once(builds):
    for _ in range(3):
        fastllie.enhance(RGB)
    assert len(builds) == 1
    fastllie.enhance(RGB, "zerodce++")
    fastllie.enhance(RGB, "zerodce++", scale=2)
    fastllie.enhance(RGB, dtype=torch.float64)
    assert len(builds) == 4
    assert len(loading._models) == 4


def test_a_changed_file_is_loaded_again(builds, tmp_path):
    path = write_weights(tmp_path / "w.safetensors", "zerodce", seed=0)
    before = fastllie.enhance(RGB, "zerodce", weights=path)
    write_weights(path, "zerodce", seed=1)
    os.utime(path, ns=(1, 1))
    assert not np.array_equal(fastllie.enhance(RGB, "zerodce", weights=path), before)
    assert len(builds) == 2


def test_the_cache_is_bounded(builds):
    for scale in range(1, loading.CACHED_MODELS + 4):
        fastllie.enhance(RGB[:4], "zerodce++", scale=scale)
    assert len(loading._models) == loading.CACHED_MODELS
    fastllie.enhance(RGB[:4], "zerodce++", scale=loading.CACHED_MODELS + 3)
    assert len(builds) == loading.CACHED_MODELS + 3


def test_threads_share_one_network(builds):
    want = fastllie.enhance(RGB)
    loading._models.clear()
    builds.clear()
    results, start = [], threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(3):
            results.append(fastllie.enhance(RGB))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 24
    assert all(np.array_equal(result, want) for result in results)
    assert len(builds) == 1


# --- importing


def run_python(code):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=HOME, check=True
    )
    return done


def test_import_is_silent_and_starts_no_cuda():
    code = """
import sys, torch, fastllie
fastllie.list_methods(); fastllie.info("zerodce"); fastllie.backends()
assert not torch.cuda.is_initialized()
assert "fastllie.training" not in sys.modules
"""
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("", "")


def test_import_is_quick():
    code = "import time, torch; t = time.perf_counter(); import fastllie; print(time.perf_counter() - t)"
    assert min(float(run_python(code).stdout) for _ in range(3)) < 0.3
