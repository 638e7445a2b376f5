"""`Enhancer` at work: tiles of bytes, memory, bright images, frames, threads, processes, compiled code."""

import multiprocessing
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import RGB, refused, same_levels, write_weights
from PIL import Image
from serving import HOME, device_of
from torch.utils._python_dispatch import TorchDispatchMode

import fastllie
from fastllie.inference import loading, tiles
from fastllie.inference.levels import mean_luma
from fastllie.inference.tiles import auto_tile, blended, tiled
from fastllie.ops import default_backend

pytestmark = pytest.mark.usefixtures("random_weights")

METHODS = ["zerodce", "zerodce++", "sci"]
DARK = np.random.default_rng(1).integers(0, 70, (23, 31, 3), dtype=np.uint8)
BRIGHT = 255 - DARK


# --- tiles


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_bytes_in_tiles_are_those_of_the_whole(method, strength):
    frame = np.random.default_rng(0).integers(0, 90, (2, 47, 61, 3), dtype=np.uint8)
    whole = fastllie.enhance(frame, method, strength=strength, tile=None)
    for tile in (9, 20, 50):
        got = fastllie.enhance(frame, method, strength=strength, tile=tile)
        assert same_levels(got, whole.astype(np.int64))
    exact = fastllie.enhance(frame / 255.0, method, strength=strength, tile=None, dtype=torch.float64)
    assert same_levels(whole, np.floor(exact * 255 + 0.5).astype(np.int64))


def mean_of_25(x):
    return F.avg_pool2d(x, 5, 1)


def test_tiles_that_bring_their_halo_waste_nothing():
    seen = []

    def cropping(x):
        seen.append(tuple(x.shape[-2:]))
        return mean_of_25(x)

    def model(x):
        return mean_of_25(F.pad(x, (2, 2, 2, 2), mode="replicate"))

    x = torch.rand(2, 3, 23, 40)
    got = tiled(model, x, 10, 2, cropping=cropping)
    torch.testing.assert_close(got, model(x), rtol=0, atol=1e-6)
    # of one shape all, and no larger than a tile and its halo
    assert seen == [(8 + 4, 10 + 4)] * (2 * 3 * 4)
    out = torch.empty(3, 2, 23, 40).transpose(0, 1)
    assert tiled(model, x, 10, 2, cropping=cropping, out=out) is out
    assert torch.equal(out, got)
    # one pixel a tile, and halos wider than the image
    x = torch.rand(1, 3, 2, 1)
    torch.testing.assert_close(tiled(model, x, 1, 2, cropping=cropping), model(x), rtol=0, atol=1e-6)


def test_overlapping_tiles_fade_over():
    seen = []

    def stretched(x):
        # as global as can be: to the brightest and the darkest pixel of what it is given
        seen.append(tuple(x.shape[-2:]))
        return (x - x.amin((2, 3), keepdim=True)) / (
            x.amax((2, 3), keepdim=True) - x.amin((2, 3), keepdim=True)
        )

    columns = torch.linspace(0, 1, 100).expand(2, 3, 60, 100).contiguous()
    noisy = columns + 0.2 * torch.rand(columns.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(blended(stretched, noisy, 100, 10), stretched(noisy))
    # what depends on no other pixel stays what it is
    torch.testing.assert_close(blended(torch.square, noisy, 30, 7), noisy.square(), rtol=0, atol=1e-6)
    seen.clear()
    got = blended(stretched, columns, 40, 20)
    assert set(seen) == {(40, 40)}
    assert len(seen) == 2 * 4
    assert (got >= 0).all()
    assert (got <= 1).all()
    # tiles differ by half their range where they meet; one that was laid beside the next would jump by it
    assert got.diff(dim=-1).abs().max() < 0.1
    with refused(ValueError, "overlap must lie between 0 and tile, got 30 with tiles of 30"):
        blended(stretched, noisy, 30, 30)


def test_auto_tiles_follow_the_device(monkeypatch):
    assert auto_tile(torch.device("cpu")) == tiles.CPU_TILE
    free = {"bytes": 80 << 30}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free["bytes"], 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 << 30)
    device = torch.device("cuda", 0)
    assert auto_tile(device) == tiles.ACCELERATOR_TILE
    free["bytes"] = 2 << 30
    side = auto_tile(device)
    assert tiles.CPU_TILE < side < tiles.ACCELERATOR_TILE
    # half of the 2 GB that are free and the 2 GB that PyTorch holds unused
    assert 0.99 * (2 << 30) < side**2 * tiles.BYTES_A_PIXEL <= 2 << 30
    free["bytes"] = 0
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1 << 30)
    assert auto_tile(device) == tiles.CPU_TILE


MEMORY = """
import resource, sys
import numpy as np, torch
import fastllie

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

method, weights, width, height, settings = sys.argv[1:]
torch.set_num_threads(1)
enhancer = fastllie.Enhancer(method, weights=weights, **eval(settings))
enhancer(np.zeros((300, 300, 3), np.uint8))
photograph = np.full((int(height), int(width), 3), 40, np.uint8)
before = peak()
enhancer(photograph)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units")
@pytest.mark.parametrize(
    ("method", "size", "settings", "most"),
    # the result itself, and less than one float image of the whole: 144, 144 and 72 MB
    [("sci", (4000, 3000), "{}", 70), ("sci", (4000, 3000), "{'strength': 0.5, 'skip_bright': 0.9}", 120),
     ("zerodce++", (2400, 2000), "{}", 14 + 75)],
)  # fmt: skip
def test_a_photograph_is_never_one_float_image(tmp_path, method, size, settings, most):
    path = write_weights(tmp_path / "w.safetensors", method)
    arguments = [method, str(path), *map(str, size), settings]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=False, cwd=HOME
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < most


# --- images that are bright already


def test_bright_images_come_back_as_they_are(tmp_path):
    enhancer = fastllie.Enhancer("zerodce", skip_bright=0.5)
    path = tmp_path / "photo.png"
    Image.fromarray(BRIGHT).save(path)
    floats = torch.rand(1, 3, 9, 8, dtype=torch.float64).clamp(min=0.6)
    for image in (BRIGHT, BRIGHT.astype(np.uint16) * 257, Image.fromarray(BRIGHT), path, floats):
        got = enhancer(image)
        want = fastllie.enhance(image, strength=0)
        assert type(got) is type(want)
        assert got is not image
        assert np.array_equal(np.asarray(got), np.asarray(want))
    grey = Image.fromarray(BRIGHT[..., 0])
    assert enhancer(grey).mode == "L"
    assert enhancer(grey).tobytes() == grey.tobytes()


def test_dark_images_are_enhanced_as_without_the_gate():
    enhancer = fastllie.Enhancer("zerodce", skip_bright=0.5)
    assert np.array_equal(enhancer(DARK), fastllie.enhance(DARK, "zerodce"))
    assert not np.array_equal(enhancer(DARK), DARK)
    # off by default
    assert not np.array_equal(fastllie.Enhancer("zerodce")(BRIGHT), BRIGHT)


@pytest.mark.parametrize("kind", ["array", "floats", "tensor"])
def test_each_image_of_a_batch_is_judged_alone(kind):
    frames = np.stack([DARK, BRIGHT, DARK // 2, BRIGHT // 2 + 128])
    if kind == "floats":
        frames = frames / 255.0
    elif kind == "tensor":
        frames = torch.from_numpy(frames).permute(0, 3, 1, 2)
    got = fastllie.Enhancer("zerodce", skip_bright=0.5)(frames)
    assert type(got) is type(frames)
    plain = fastllie.enhance(frames, "zerodce")
    for place, want in enumerate((plain, frames, plain, frames)):
        assert np.array_equal(np.asarray(got[place]), np.asarray(want[place])), place


def test_the_gate_in_batches_and_streams():
    enhancer = fastllie.Enhancer("zerodce", skip_bright=0.5)
    images = [DARK, BRIGHT, DARK[:9], BRIGHT]
    want = [fastllie.enhance(DARK, "zerodce"), BRIGHT, fastllie.enhance(DARK[:9], "zerodce"), BRIGHT]
    for got in (enhancer.batch(images), list(enhancer.stream(images))):
        assert all(np.array_equal(*pair) for pair in zip(got, want, strict=True))


def test_a_stream_keeps_bright_frames_of_a_producer_that_reuses_its_memory():
    frame = np.empty((4, 5, 3), np.uint8)

    def camera():
        for level in (200, 220, 240):
            frame.fill(level)
            yield frame

    got = list(fastllie.Enhancer("zerodce", skip_bright=0.5).stream(camera()))
    assert [int(image[0, 0, 0]) for image in got] == [200, 220, 240]


def test_mean_luma():
    x = torch.from_numpy(np.stack([DARK, BRIGHT])).permute(0, 3, 1, 2)
    want = (x.double() / 255).mean((2, 3)) @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    torch.testing.assert_close(mean_luma(x), want, rtol=0, atol=1e-12)
    torch.testing.assert_close(mean_luma(x.float() / 255), want, rtol=0, atol=1e-6)
    torch.testing.assert_close(mean_luma(x.flip(1), bgr=True), want, rtol=0, atol=1e-12)
    # more rows than are summed at once
    tall = torch.full((1, 3, 3000, 300), 51, dtype=torch.uint8)
    assert float(mean_luma(tall)) == pytest.approx(0.2, abs=1e-12)


def test_wrong_gates_and_switches():
    with refused(ValueError, "skip_bright must lie in [0, 1], got 90"):
        fastllie.Enhancer(skip_bright=90)
    with refused(TypeError, "skip_bright must be a number, got str"):
        fastllie.Enhancer(skip_bright="0.5")
    with refused(TypeError, "compile must be True or False, got 'auto'"):
        fastllie.Enhancer(compile="auto")


# --- frames


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sci", {}),
        ("sci", {"strength": 0.5}),
        ("sci", {"tile": 10}),
        ("sci", {"compile": True}),
        ("zerodce", {"tile": 12}),
        ("zerodce++", {"scale": 2, "dtype": torch.float64}),
        ("sci", {"strength": 0}),
    ],
)
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_frames(method, settings, channels, monkeypatch):
    compile_eagerly(monkeypatch)
    enhancer = fastllie.Enhancer(method, channels=channels, **settings)
    for frame in (DARK, np.stack([DARK, DARK // 2])):
        before = frame.copy()
        out = np.full_like(frame, 77)
        for _ in range(2):
            assert enhancer.preprocess(frame, out=out) is out
        assert same_levels(out, enhancer(frame).astype(np.int64))
        assert np.array_equal(frame, before)
        fresh = enhancer.preprocess(frame)
        assert fresh is not out
        assert np.array_equal(fresh, out)


def test_bgr_frames_are_rgb_frames_in_another_order():
    rgb = fastllie.Enhancer("sci").preprocess(DARK)
    bgr = fastllie.Enhancer("sci", channels="bgr").preprocess(np.ascontiguousarray(DARK[..., ::-1]))
    assert not np.array_equal(rgb, rgb[..., ::-1])
    assert same_levels(bgr[..., ::-1], rgb.astype(np.int64))


def test_frames_of_any_strides():
    enhancer = fastllie.Enhancer("sci")
    want = enhancer(DARK)
    canvas = np.zeros((23, 80, 3), np.uint8)
    canvas[:, :31] = DARK
    # side by side on one canvas
    enhancer.preprocess(canvas[:, :31], out=canvas[:, 40:71])
    assert np.array_equal(canvas[:, 40:71], want)
    assert np.array_equal(canvas[:, :31], DARK)
    assert not canvas[:, 71:].any()
    mirrored = enhancer.preprocess(DARK[:, ::-1])
    assert np.array_equal(mirrored, enhancer(DARK[:, ::-1].copy()))
    fixed = DARK.copy()
    fixed.flags.writeable = False
    assert np.array_equal(enhancer.preprocess(fixed), want)


def test_bright_frames_are_copied():
    frames = np.stack([DARK, BRIGHT])
    for channels in ("rgb", "bgr"):
        enhancer = fastllie.Enhancer("zerodce", channels=channels, skip_bright=0.5)
        out = enhancer.preprocess(frames)
        assert np.array_equal(out[1], BRIGHT)
        assert np.array_equal(out[0], fastllie.Enhancer("zerodce", channels=channels).preprocess(DARK))
        assert np.array_equal(enhancer.preprocess(BRIGHT), BRIGHT)


class Memory(TorchDispatchMode):
    """The largest storage that an operator made, in bytes."""

    def __init__(self, *known):
        super().__init__()
        self.known = {array.ctypes.data for array in known}
        self.largest = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in self.known:
                self.largest = max(self.largest, made.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_frames_of_sci_allocate_nothing(channels):
    import tracemalloc

    if default_backend("cpu") == "torch":
        pytest.skip("the compiled kernels are not here")
    frame = np.random.default_rng(0).integers(0, 90, (480, 640, 3), dtype=np.uint8)
    out = np.empty_like(frame)
    enhancer = fastllie.Enhancer("sci", channels=channels, device="cpu")
    enhancer.preprocess(frame, out=out)
    with Memory(frame, out) as memory:
        enhancer.preprocess(frame, out=out)
    assert memory.largest < 4096
    # the control: a call that makes a new result
    with Memory(frame, out) as memory:
        enhancer(frame)
    assert memory.largest >= frame.nbytes
    # NumPy tells tracemalloc of its arrays
    tracemalloc.start()
    try:
        enhancer.preprocess(frame, out=out)
        assert tracemalloc.get_traced_memory()[1] < 64 << 10
        enhancer.preprocess(frame)
        assert tracemalloc.get_traced_memory()[1] >= frame.nbytes
    finally:
        tracemalloc.stop()


def test_wrong_frames():
    enhancer = fastllie.Enhancer("sci")
    with refused(TypeError, "frame must be a numpy.ndarray of uint8, got an array of float64"):
        enhancer.preprocess(DARK / 255)
    with refused(TypeError, "frame must be a numpy.ndarray of uint8, got Tensor"):
        enhancer.preprocess(torch.from_numpy(DARK))
    with refused(ValueError, "frame must be (H, W, 3) or (B, H, W, 3), not empty, got shape (23, 31)"):
        enhancer.preprocess(DARK[..., 0])
    with refused(ValueError, "got shape (0, 31, 3)"):
        enhancer.preprocess(DARK[:0])
    with refused(TypeError, "out must be a numpy.ndarray of uint8, got list"):
        enhancer.preprocess(DARK, out=[])
    with refused(ValueError, "out must have the shape of frame, (23, 31, 3), got (22, 31, 3)"):
        enhancer.preprocess(DARK, out=DARK[:-1].copy())
    with refused(ValueError, "out must be writeable and have positive strides"):
        enhancer.preprocess(DARK, out=np.empty_like(DARK)[::-1])
    frame = DARK.copy()
    with refused(ValueError, "out shares memory with frame"):
        enhancer.preprocess(frame, out=frame)
    with refused(ValueError, "out shares memory with frame"):
        enhancer.preprocess(frame[:-1], out=frame[1:])


# --- half precision and compiled code


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(method, dtype):
    enhancer = fastllie.Enhancer(method, dtype=dtype)
    want = fastllie.enhance(DARK, method).astype(int)
    got = enhancer(DARK)
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - want).max() <= (2 if dtype == torch.float16 else 12)
    x = torch.from_numpy(DARK).permute(2, 0, 1) / 255
    assert enhancer(x).dtype == torch.float32
    assert enhancer(x.to(dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("method", "options"),
    [("dawn", {}), ("sci", {}), ("zerodce++", {"scale": 3})],
    ids=lambda value: str(value),
)
def test_bytes_in_bfloat16_go_to_the_kernels_as_they_are(method, options, monkeypatch):
    device_of("cpu")
    enhancer = fastllie.Enhancer(method, dtype=torch.bfloat16, **options)
    want = fastllie.enhance(DARK, method, **options).astype(int)
    assert np.abs(enhancer(DARK).astype(int) - want).max() <= 1
    into = np.empty_like(DARK)
    assert enhancer.preprocess(DARK, out=into) is into
    assert np.abs(into.astype(int) - want).max() <= 1
    # PyTorch's own operators would round what comes out to bfloat16
    monkeypatch.setenv("FASTLLIE_BACKEND", "torch")
    plain = fastllie.Enhancer(method, dtype=torch.bfloat16, **options)
    assert np.abs(plain(DARK).astype(int) - want).max() <= 12


def compile_eagerly(monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **settings: real(model, backend="eager", **settings))


@pytest.mark.parametrize(
    ("method", "options", "enhancers"), [("zerodce", {}, 3), ("zerodce++", {"scale": 3}, 1), ("sci", {}, 3)]
)
def test_compiled_code_serves_every_size_and_kind(method, options, enhancers, monkeypatch):
    compile_eagerly(monkeypatch)
    tile = "auto" if options else 16
    images = [DARK, DARK[:15, :15], DARK / 255.0]
    if not options:
        images += [DARK[:1], DARK[:, :1], np.stack([DARK, DARK])]
    for _ in range(enhancers):
        # networks of one class share no limit of versions
        enhancer = fastllie.Enhancer(method, compile=True, tile=tile, **options)
        for image in images:
            want = fastllie.enhance(image, method, **options)
            np.testing.assert_allclose(
                enhancer(image).astype(np.float64), want, rtol=0, atol=1 if image.dtype == np.uint8 else 1e-5
            )


def test_what_cannot_be_compiled_is_an_error(monkeypatch):
    compile_eagerly(monkeypatch)
    from fastllie.models.zerodce import ZeroDCE

    def forward(self, x, *, cropped=False):
        torch._dynamo.graph_break()
        return x

    monkeypatch.setattr(ZeroDCE, "forward", forward)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        fastllie.Enhancer("zerodce", compile=True)(DARK)


# --- streams and threads


def test_a_stream_enhances_the_next_image_while_the_caller_is_busy():
    enhancer = fastllie.Enhancer("zerodce")
    network = loading.shared_network("zerodce", enhancer._run.path, torch.device("cpu"), torch.float32, {})
    threads, second = [], threading.Event()

    def called(module, inputs, output):
        threads.append(threading.current_thread())
        if len(threads) == 2:
            second.set()

    hook = network.register_forward_hook(called)
    try:
        stream = enhancer.stream([DARK] * 4)
        next(stream)
        assert second.wait(30), "nothing was enhanced while the caller held the first result"
        assert threading.current_thread() not in threads
        assert len(list(stream)) == 3
    finally:
        hook.remove()


def test_one_enhancer_in_many_threads():
    enhancer = fastllie.Enhancer("sci", skip_bright=0.9)
    tiled_one = fastllie.Enhancer("zerodce", tile=12)
    frames = [np.roll(DARK, place, 0) for place in range(6)]
    want = [(enhancer(frame), tiled_one(frame)) for frame in frames]
    wrong, start = [], threading.Barrier(6)

    def work(place):
        out = np.empty_like(DARK)
        start.wait()
        for _ in range(10):
            enhancer.preprocess(frames[place], out=out)
            by_tiles = tiled_one(frames[place])
            if not (np.array_equal(out, want[place][0]) and np.array_equal(by_tiles, want[place][1])):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- other processes


@pytest.fixture
def own_weights(tmp_path):
    """A file, which a spawned process finds too."""
    return write_weights(tmp_path / "w.safetensors", "zerodce++")


def test_pickled_by_its_arguments(own_weights):
    enhancer = fastllie.Enhancer(
        "zerodce++", weights=own_weights, strength=0.5, channels="bgr", skip_bright=0.9, scale=2
    )
    content = pickle.dumps(enhancer)
    assert len(content) < 2000
    again = pickle.loads(content)
    assert repr(again) == repr(enhancer)
    for image in (DARK, BRIGHT):
        assert np.array_equal(again(image), enhancer(image))


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_a_pool_of_processes(own_weights, way):
    if way not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {way}")
    enhancer = fastllie.Enhancer("zerodce++", weights=own_weights)
    frames = [np.roll(DARK, place, 0) for place in range(4)]
    threads = torch.get_num_threads()
    # loops of several threads in the parent first: a fork that used them would hang
    torch.set_num_threads(2)
    try:
        big = np.zeros((400, 400, 3), np.uint8)
        want = [enhancer(frame) for frame in (*frames, big)]
        with multiprocessing.get_context(way).Pool(2) as pool:
            got = pool.map_async(enhancer, [*frames, big]).get(timeout=120)
            frame = pool.apply_async(enhancer.preprocess, (DARK,)).get(timeout=120)
    finally:
        torch.set_num_threads(threads)
    assert all(same_levels(*pair) for pair in zip(got, (w.astype(np.int64) for w in want), strict=True))
    assert same_levels(frame, enhancer(DARK).astype(np.int64))


class Photographs(torch.utils.data.Dataset):
    def __init__(self, enhancer):
        self.enhancer = enhancer

    def __len__(self):
        return 6

    def __getitem__(self, place):
        return self.enhancer(torch.from_numpy(np.roll(DARK, place, 0)).permute(2, 0, 1))


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_workers_of_a_data_loader(own_weights, way):
    if way not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {way}")
    photographs = Photographs(fastllie.Enhancer("zerodce++", weights=own_weights))
    loader = torch.utils.data.DataLoader(
        photographs, batch_size=3, num_workers=2, multiprocessing_context=way, timeout=120
    )
    got = torch.cat(list(loader))
    want = torch.stack([photographs[place] for place in range(6)])
    assert same_levels(got.numpy(), want.numpy().astype(np.int64))


def test_a_fork_takes_no_lock_that_another_thread_held():
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system does not fork")
    with loading.exclusively():
        process = multiprocessing.get_context("fork").Process(target=fastllie.enhance, args=(RGB, "sci"))
        process.start()
        process.join(60)
    alive = process.is_alive()
    process.kill()
    assert not alive
    assert process.exitcode == 0


def test_a_network_loaded_in_inference_mode_is_an_ordinary_one(tmp_path):
    path = write_weights(tmp_path / "w.safetensors", "zerodce", seed=9)
    with torch.inference_mode():
        enhancer = fastllie.Enhancer("zerodce", weights=path, device="cpu")
    model = loading.shared_network("zerodce", enhancer._run.path, torch.device("cpu"), torch.float32, {})
    # other modes share it
    assert not any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))
