"""Every kind of image comes back as it came, and every wrong one is told what is wanted."""

import io

import numpy as np
import pytest
import torch
from helpers import RGB, expected, refused, rounded, same_levels, unit
from PIL import Image

import fastllie
from fastllie.images.batches import to_batch

pytestmark = pytest.mark.usefixtures("random_weights")

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-6, torch.float64: 1e-6}


# --- tensors


@pytest.mark.parametrize("method", ["zerodce", "zerodce++"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["chw", "bchw", "channels_last", "strided"])
def test_float_tensors(method, dtype, layout):
    x = unit().to(dtype)
    given = {
        "chw": x[0],
        "bchw": x.expand(2, -1, -1, -1).contiguous(),
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "strided": x.repeat_interleave(2, dim=-1)[..., ::2],
    }[layout]
    before = given.clone()
    got = fastllie.enhance(given, method)
    assert (got.shape, got.dtype, got.device) == (given.shape, given.dtype, given.device)
    assert torch.equal(given, before), "the input was changed"
    if layout != "strided":
        assert got.stride() == given.stride()
    want = expected(x.float(), method)
    got = (got if got.dim() == 4 else got[None]).float()
    torch.testing.assert_close(got[:1], want, rtol=0, atol=TOLERANCE[dtype])
    assert (got - x.float()).abs().max() > 0.05, "nothing was enhanced"


@pytest.mark.parametrize("shape", ["chw", "bchw", "channels_last"])
def test_uint8_tensors(shape):
    x = torch.from_numpy(RGB).permute(2, 0, 1)
    given = {"chw": x.contiguous(), "channels_last": x[None], "bchw": x[None].contiguous()}[shape]
    got = fastllie.enhance(given, "zerodce")
    assert (got.shape, got.dtype, got.stride()) == (given.shape, torch.uint8, given.stride())
    got = got.reshape(1, 3, *got.shape[-2:])[0].permute(1, 2, 0).numpy()
    assert same_levels(got, rounded(expected(unit())))


def test_results_are_ordinary_tensors():
    y = fastllie.enhance(unit().requires_grad_())
    assert not y.requires_grad
    assert not y.is_inference()
    weight = torch.ones(1, requires_grad=True)
    (y * weight).sum().backward()
    assert weight.grad > 0


def test_parameters_and_subclasses_are_tensors():
    got = fastllie.enhance(torch.nn.Parameter(unit()), "zerodce")
    torch.testing.assert_close(got, expected(unit()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_compute_dtype(dtype):
    got = fastllie.enhance(RGB, "zerodce", dtype=dtype)
    want = rounded(expected(unit()))
    limit = {torch.bfloat16: 12, torch.float16: 2}.get(dtype, 1)
    assert np.abs(got.astype(int) - want).max() <= limit


def test_every_level_is_divided_exactly():
    """Multiplying by 1/255 instead gives other floats for half of the levels."""
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    x, source = to_batch(levels)
    assert np.array_equal(x[0].permute(1, 2, 0).numpy(), levels / np.float32(255))
    assert np.array_equal(source.restore(x), levels)
    deep = np.arange(65536, dtype=np.uint16).repeat(3).reshape(256, 256, 3)
    x, source = to_batch(deep)
    assert np.array_equal(source.restore(x), deep)


def test_halves_are_rounded_up():
    _, source = to_batch(np.zeros((1, 3, 3), np.uint8))
    y = torch.tensor([0.5, 1.5, 2.5]).view(1, 1, 1, 3).expand(1, 3, 1, 3) / 255
    assert source.restore(y)[0, :, 0].tolist() == [1, 2, 3]


# --- arrays


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64", ">u2", ">f4"])
@pytest.mark.parametrize("batch", [False, True])
def test_arrays(dtype, batch):
    dtype = np.dtype(dtype)
    top = {"u1": 255, "u2": 65535}.get(dtype.str[1:])
    given = (RGB / 255 if top is None else RGB.astype(np.int64) * top // 255).astype(dtype)
    given = np.stack([given, given[::-1]]) if batch else given
    got = fastllie.enhance(given, "zerodce")
    assert isinstance(got, np.ndarray)
    assert (got.shape, got.dtype) == (given.shape, given.dtype)
    first, source = (got[0], given[0]) if batch else (got, given)
    x = torch.from_numpy((source / (top or 1)).astype(np.float32)).permute(2, 0, 1)[None]
    if top is None:
        want = expected(x)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(first, want, rtol=0, atol=1e-3 if dtype.itemsize == 2 else 1e-6)
    else:
        assert same_levels(first, rounded(expected(x), top), off=1)


@pytest.mark.parametrize("view", ["reversed", "readonly", "fortran", "sliced"])
def test_arrays_of_any_layout(view):
    given = {
        "reversed": RGB[::-1, ::-1, ::-1],
        "readonly": RGB.copy(),
        "fortran": np.asfortranarray(RGB),
        "sliced": RGB.repeat(2, axis=1)[:, ::2],
    }[view]
    given.flags.writeable = view != "readonly"
    before = given.copy()
    got = fastllie.enhance(given)
    assert np.array_equal(got, fastllie.enhance(np.ascontiguousarray(given)))
    assert np.array_equal(given, before)
    assert got.flags.writeable


def test_bgr():
    bgr = np.ascontiguousarray(RGB[..., ::-1])
    want = fastllie.enhance(RGB)
    assert np.array_equal(fastllie.enhance(bgr, channels="bgr")[..., ::-1], want)
    tensor = torch.from_numpy(bgr).permute(2, 0, 1)
    assert np.array_equal(fastllie.enhance(tensor, channels="bgr").permute(1, 2, 0).numpy()[..., ::-1], want)
    assert not np.array_equal(fastllie.enhance(bgr), want[..., ::-1])
    deep = np.stack([bgr, bgr[::-1]]).astype(np.uint16) * 257
    want_deep = fastllie.enhance(np.ascontiguousarray(deep[..., ::-1]))
    assert np.array_equal(fastllie.enhance(deep, channels="bgr")[..., ::-1], want_deep)
    # files and PIL images know their order
    assert np.array_equal(fastllie.enhance(Image.fromarray(RGB), channels="bgr"), want)


# --- PIL images and files


def pil(mode):
    image = Image.fromarray(RGB)
    if mode == "RGBX":
        return Image.merge("RGBX", (*image.split(), Image.fromarray(RGB[..., 0])))
    if mode == "LAB":
        return Image.frombytes("LAB", image.size, RGB.tobytes())
    alpha = Image.fromarray(RGB[..., 1].copy())
    if mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(alpha)
        return image
    if mode in ("La", "RGBa"):
        return pil(mode.upper()).convert(mode)
    if mode == "PA":
        return image.convert("RGBA").convert("PA")
    if mode == "P":
        return image.quantize(32)
    grey = image.convert("L")
    values = np.asarray(grey)
    if mode == "F":
        return Image.fromarray(values.astype(np.float32) / 255)
    if mode == "I":
        return Image.fromarray(values.astype(np.int32) * 257)
    if mode == "I;16":
        return Image.fromarray(values.astype(np.uint16) * 257)
    if mode == "I;16B":
        return Image.frombytes("I;16B", grey.size, (values.astype(">u2") * 257).astype(">u2").tobytes())
    return image.convert(mode)


MODES = {
    "RGB": "RGB",
    "RGBA": "RGBA",
    "RGBX": "RGBX",
    "RGBa": "RGBA",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "1": "1",
    "P": "RGB",
    "PA": "RGBA",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
    "HSV": "HSV",
    "LAB": "LAB",
    "I": "I",
    "F": "F",
    "I;16": "I;16",
    "I;16B": "I;16B",
}


@pytest.mark.parametrize(("mode", "back"), MODES.items())
def test_pil_modes(mode, back):
    image = pil(mode)
    image.info["icc_profile"] = b"profile"
    before = image.copy()
    got = fastllie.enhance(image, "zerodce")
    assert isinstance(got, Image.Image)
    assert (got.mode, got.size) == (back, image.size)
    assert got.info["icc_profile"] == b"profile"
    assert image.tobytes() == before.tobytes(), "the input was changed"
    if back in ("RGBA", "LA", "RGBX"):
        plain = image if mode == back else image.convert(back)
        assert got.getchannel(len(back) - 1).tobytes() == plain.getchannel(len(back) - 1).tobytes()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "P"])
def test_pil_colours(mode):
    image = pil(mode)
    pixels = np.asarray(image.convert("RGB") if mode == "P" else image)[..., :3]
    got = np.asarray(fastllie.enhance(image))[..., :3]
    assert np.array_equal(got, fastllie.enhance(np.ascontiguousarray(pixels)))


@pytest.mark.parametrize(
    ("mode", "top"), [("L", 255), ("LA", 255), ("I;16", 65535), ("I;16B", 65535), ("I", 65535)]
)
def test_grey_is_the_luma_of_the_enhanced(mode, top):
    image = pil(mode)
    values = np.asarray(image.getchannel(0) if mode == "LA" else image).astype(np.float32) / top
    y = expected(torch.from_numpy(values).expand(1, 3, -1, -1))[0].double()
    want = np.floor((0.299 * y[0] + 0.587 * y[1] + 0.114 * y[2]).numpy() * top + 0.5)
    got = fastllie.enhance(image, "zerodce")
    assert same_levels(np.asarray(got.getchannel(0) if mode == "LA" else got), want)


def test_grey_floats():
    image = pil("F")
    y = expected(torch.from_numpy(np.array(image)).expand(1, 3, -1, -1))[0]
    want = 0.299 * y[0] + 0.587 * y[1] + 0.114 * y[2]
    np.testing.assert_allclose(np.asarray(fastllie.enhance(image, "zerodce")), want, rtol=0, atol=1e-6)


def test_bilevel_keeps_black_and_white():
    image = pil("1")
    assert fastllie.enhance(image).tobytes() == image.tobytes()


def png(image, **extras):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **extras)
    return Image.open(buffer)


def test_a_transparent_colour_becomes_alpha():
    palette = pil("P")
    first = palette.getpixel((0, 0))
    got = fastllie.enhance(png(palette, transparency=first))
    assert got.mode == "RGBA"
    assert np.array_equal(np.asarray(got)[..., 3] == 0, np.asarray(palette) == first)
    colour = tuple(int(value) for value in RGB[0, 0])
    got = fastllie.enhance(png(Image.fromarray(RGB), transparency=colour))
    assert got.mode == "RGBA"
    assert np.array_equal(np.asarray(got)[..., 3] == 0, (colour == RGB).all(-1))
    assert "transparency" not in got.info
    grey = png(Image.fromarray(RGB[..., 0]), transparency=int(RGB[0, 0, 0]))
    got = fastllie.enhance(grey)
    assert got.mode == "LA"
    assert np.array_equal(np.asarray(got)[..., 1] == 0, RGB[..., 0] == RGB[0, 0, 0])


def jpeg_with_exif(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9286] = "a comment"
    image = Image.fromarray(RGB)
    image.save(path, quality=100, exif=exif, icc_profile=b"not a real profile")
    return path


TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("given", ["path", "str", "opened", "tiff"])
def test_orientation_is_applied_once(tmp_path, orientation, given):
    path = jpeg_with_exif(tmp_path / "photo.jpg", orientation)
    with Image.open(path) as photo:
        turn = TURNS[orientation]
        upright = photo.convert("RGB") if turn is None else photo.transpose(turn)
        if given == "tiff":
            path = tmp_path / "photo.tif"
            photo.save(path, exif=photo.getexif())
    if given == "opened":
        with Image.open(path) as image:
            got = fastllie.enhance(image)
    else:
        got = fastllie.enhance(str(path) if given == "str" else path)
    assert got.size == upright.size
    assert np.array_equal(np.asarray(got), fastllie.enhance(np.array(upright)))
    assert got.getexif().get(0x0112, 1) == 1
    assert got.getexif()[0x010F] == "Maker"
    assert got.getexif().get_ifd(0x8769)[0x9286] == "a comment"
    assert got.info["icc_profile"] == b"not a real profile"
    # once: what comes back is upright and stays as it is
    assert fastllie.enhance(got, strength=0).tobytes() == got.tobytes()


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_damaged_exif_costs_no_photograph(tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(RGB).save(path, exif=b"Exif\0\0II*\0\1", lossless=True)
    want = fastllie.enhance(RGB)
    with pytest.warns(UserWarning, match=rf"the EXIF data of '.*photo\.{suffix}' are damaged and left out"):
        got = fastllie.enhance(path)
    assert np.array_equal(np.asarray(got), want)
    assert "exif" not in got.info
    with Image.open(path) as image:
        image.load()
        before = dict(image.info)
        with pytest.warns(UserWarning, match="are damaged and left out"):
            assert np.array_equal(np.asarray(fastllie.enhance(image)), want)
        assert image.info == before, "the input was changed"


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"a\.png': left out: the other picture"):
        assert np.array_equal(fastllie.enhance(tmp_path / "a.png"), fastllie.enhance(RGB))


@pytest.mark.parametrize("mode", MODES)
def test_strength_zero_returns_the_image(mode):
    image = pil(mode)
    got = fastllie.enhance(image, strength=0)
    want = image.convert(MODES[mode]) if mode != MODES[mode] else image
    assert got.mode == want.mode
    assert got.tobytes() == want.tobytes()
    assert got is not image


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_strength_zero_returns_the_array(dtype):
    given = (RGB / 255).astype(dtype) if dtype.startswith("f") else RGB.astype(dtype)
    got = fastllie.enhance(given, strength=0)
    assert np.array_equal(got, given)
    assert got is not given
    tensor = torch.from_numpy(given.astype("uint8" if dtype == "uint16" else dtype)).permute(2, 0, 1)
    got = fastllie.enhance(tensor, strength=0)
    assert torch.equal(got, tensor)
    assert got.data_ptr() != tensor.data_ptr()


# --- wrong images


@pytest.mark.parametrize(
    ("image", "kind", "told"),
    [
        (None, TypeError, "image is a NoneType; wanted a torch.Tensor"),
        ([1, 2], TypeError, "image is a list; wanted"),
        (b"bytes", ValueError, "<bytes> is not an image that Pillow can read"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), TypeError, "image is a tensor of torch.int64; wanted"),
        (torch.zeros(3, 4, 4, dtype=torch.bool), TypeError, "image is a tensor of torch.bool"),
        (torch.zeros(3, 4, 4, dtype=torch.complex64), TypeError, "image is a tensor of torch.complex64"),
        (torch.zeros(3, 4, 4).to_sparse(), TypeError, "layout torch.sparse_coo; wanted a dense one"),
        (torch.zeros(4, 4), ValueError, "shape (4, 4); wanted (3,H,W) or (B,3,H,W)"),
        (
            torch.zeros(4, 5, 3),
            ValueError,
            "shape (4, 5, 3); wanted (3,H,W) or (B,3,H,W); its channels are on axis",
        ),
        (torch.zeros(1, 4, 5), ValueError, "it is grey, expand it to 3 channels"),
        (torch.zeros(2, 4, 5, 6), ValueError, "shape (2, 4, 5, 6)"),
        (torch.zeros(1, 1, 3, 4, 5), ValueError, "shape (1, 1, 3, 4, 5)"),
        (torch.zeros(3, 0, 5), ValueError, "image has no pixels: shape (3, 0, 5)"),
        (torch.zeros(0, 3, 4, 5), ValueError, "image has no pixels: shape (0, 3, 4, 5)"),
        (np.zeros((4, 4, 3), np.int64), TypeError, "image is an array of int64; wanted uint8, uint16"),
        (np.zeros((4, 4, 3), bool), TypeError, "image is an array of bool"),
        (np.zeros((4, 4, 3), np.complex64), TypeError, "image is an array of complex64"),
        (np.zeros((4, 4, 3), object), TypeError, "image is an array of object"),
        (np.zeros((4, 4), np.uint8), ValueError, "shape (4, 4); wanted (H,W,3) or (B,H,W,3); it is grey"),
        (
            np.zeros((3, 4, 5), np.uint8),
            ValueError,
            "shape (3, 4, 5); wanted (H,W,3)",
        ),
        (np.zeros((4, 5, 4), np.uint8), ValueError, "take the alpha channel off"),
        (np.zeros((0, 5, 3), np.uint8), ValueError, "image has no pixels: shape (0, 5, 3)"),
        (np.zeros((0, 4, 5, 3), np.uint8), ValueError, "image has no pixels"),
        (np.float32(RGB), ValueError, "floats must lie in [0, 1]; divide by 255"),
        (
            np.full((4, 4, 3), -0.5),
            ValueError,
            "image has values from -0.5 to -0.5; floats must lie in [0, 1]; clip",
        ),
        (
            np.full((4, 4, 3), 1.2),
            ValueError,
            "image has values from 1.2 to 1.2; floats must lie in [0, 1]; clip",
        ),
        (Image.new("RGB", (0, 4)), ValueError, "image has no pixels: width 0, height 4"),
        (Image.new("F", (4, 4), 100.0), ValueError, "image has values from 100 to 100"),
        (Image.new("I", (4, 4), 70000), ValueError, "mode I has values from 70000 to 70000; wanted 0..65535"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_wrong_images(image, kind, told):
    with refused(kind, told):
        fastllie.enhance(image)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_pixels_that_are_not_numbers(dtype, value):
    x = torch.full((2, 3, 5, 5), 0.5, dtype=dtype)
    x[1, 2, 3, 1:4] = float(value)
    with refused(ValueError, "image holds 3 values that are NaN or infinite, of 150"):
        fastllie.enhance(x)
    if dtype != torch.bfloat16:
        with refused(ValueError, "image holds 3 values that are NaN or infinite, of 150"):
            fastllie.enhance(x.permute(0, 2, 3, 1).numpy())


def test_a_tiny_overshoot_is_clamped():
    x = unit()
    x[0, 0, 0, :2] = torch.tensor([-9e-4, 1 + 9e-4])
    y = fastllie.enhance(x)
    assert torch.equal(y, fastllie.enhance(x.clamp(0, 1)))
    assert (y >= 0).all()
    assert (y <= 1).all()
    x[0, 0, 0, 0] = -2e-3
    with refused(ValueError, "image has values from -0.002 to 1.0009"):
        fastllie.enhance(x)


def test_wrong_files(tmp_path):
    with refused(FileNotFoundError, "no such image file", tmp_path / "none.jpg"):
        fastllie.enhance(tmp_path / "none.jpg")
    with refused(IsADirectoryError, tmp_path, "is a directory; wanted an image file"):
        fastllie.enhance(str(tmp_path))
    (tmp_path / "text.jpg").write_text("not an image")
    with refused(ValueError, tmp_path / "text.jpg", "is not an image that Pillow can read"):
        fastllie.enhance(tmp_path / "text.jpg")
    (tmp_path / "empty.png").write_bytes(b"")
    with refused(ValueError, tmp_path / "empty.png", "(it is empty)"):
        fastllie.enhance(tmp_path / "empty.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
def test_truncated_files(tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with refused(ValueError, path, "is"):
        fastllie.enhance(path)


# --- 16 bits, and fewer of them


@pytest.mark.parametrize("shape", [(3, 13, 18), (2, 3, 13, 18)])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("strength", [0, 0.5, 1])
def test_tensors_of_sixteen_bits(shape, channels, strength):
    values = np.random.default_rng(1).integers(0, 30000, shape, dtype=np.uint16)
    enhancer = fastllie.Enhancer("zerodce", channels=channels, strength=strength)
    got = enhancer(torch.from_numpy(values))
    assert (got.dtype, got.shape) == (torch.uint16, shape)
    want = enhancer(np.ascontiguousarray(np.moveaxis(values, -3, -1)))
    assert np.array_equal(got.numpy(), np.moveaxis(want, -1, -3))
    for place, result in enumerate(enhancer.batch([torch.from_numpy(values)] * 2)):
        assert torch.equal(result, got), place
    with refused(ValueError, "its channels are on axis -1, move them to -3"):
        enhancer(torch.from_numpy(values).movedim(-3, -1).contiguous())


@pytest.mark.parametrize(("white", "level"), [(1023, 1023), (4095, "auto"), (16383, "auto"), (1000, 1000)])
def test_a_white_level(white, level):
    share = np.random.default_rng(1).random((13, 18, 3))
    share[0, 0] = 1
    values = np.rint(share * white).astype(np.uint16)
    full = fastllie.enhance(np.rint(values / white * 65535).astype(np.uint16)) / 65535
    got = fastllie.enhance(values, white_level=level)
    assert got.dtype == np.uint16
    assert got.max() <= white
    assert np.abs(got / white - full).max() < 0.51 / white + 0.0002
    tensor = fastllie.enhance(torch.from_numpy(values).permute(2, 0, 1), white_level=level)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), got)
    grey = Image.fromarray(values[..., 0])
    assert np.asarray(fastllie.enhance(grey, white_level=level)).max() <= white


@pytest.mark.parametrize(
    ("level", "kind", "told"),
    [
        (0, ValueError, "white_level must lie in 1..65535, got 0"),
        (70000, ValueError, "white_level must lie in 1..65535, got 70000"),
        (4095.0, TypeError, 'white_level must be an integer, "auto" or None, got 4095.0'),
        (True, TypeError, "white_level must be an integer"),
        ("most", TypeError, "got 'most'"),
    ],
)
def test_a_white_level_that_cannot_be(level, kind, told):
    with refused(kind, told):
        fastllie.Enhancer(white_level=level)


def test_values_above_the_white_level():
    with refused(ValueError, "image has values up to 5000, above white_level=4095"):
        fastllie.enhance(np.full((9, 9, 3), 5000, np.uint16), white_level=4095)
