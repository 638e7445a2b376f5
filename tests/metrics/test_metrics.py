"""Metrics against golden values, scikit-image and plain re-expressions; every kind of image; wrong input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import refused
from PIL import Image, ImageFilter
from safetensors.torch import save_file
from scipy.ndimage import convolve
from scipy.special import gamma
from skimage.color import rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import fastllie
from fastllie import metrics
from fastllie.metrics import METRICS
from fastllie.metrics.naturalness import _halved, block_features
from fastllie.training import niqe_model

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = SHARED / "golden" / "metrics"
PHOTO = Path(__file__).resolve().parents[2] / "docs" / "photos" / "nyc-2nd-ave.jpg"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared/golden/metrics is not here")
needs_weights = pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="../shared/weights is not here")
REFERENCED = [name for name in METRICS if METRICS[name].against == "reference" and name != "lpips"]
FROM_INPUT = [name for name in METRICS if METRICS[name].against == "input"]


def picture(height=101, width=155, seed=0):
    """Coloured blobs, an edge and some noise, uint8: something of every kind of statistics."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 30
    planes = [np.sin(x * a + seed) * np.cos(y * b) for a, b in ((1.0, 2.1), (1.7, 0.9), (0.6, 1.3))]
    values = 110 + 90 * np.stack(planes, -1) + generator.normal(0, 6, (height, width, 3))
    values[: height // 3, width // 2 :] *= 0.4
    return np.clip(values, 0, 255).astype(np.uint8)


A, B = picture(), np.clip(picture() * 0.8 + picture(seed=3) * 0.15 + 9, 0, 255).astype(np.uint8)
UNIT_A, UNIT_B = A / 255, B / 255


def plane(image, colour):
    """The planes that a metric compares, from float64 [H, W, 3]."""
    if colour == "rgb":
        return image
    if colour == "grey":
        return image @ [0.299, 0.587, 0.114]
    return (image @ [65.481, 128.553, 24.966] + 16) / 255


# --- against references


@needs_golden
def test_golden_values():
    pair = np.load(GOLDEN / "pair.npz")
    given = pair["test"], pair["reference"]
    values = json.loads((GOLDEN / "values.json").read_text())["values"]
    assert float(metrics.psnr(*given)) == pytest.approx(values["psnr_rgb"], abs=1e-9)
    assert float(metrics.psnr(*given)) == pytest.approx(values["check_torchmetrics_psnr"], abs=1e-5)
    assert float(metrics.ssim(*given)) == pytest.approx(values["ssim_rgb_g11_valid"], abs=1e-9)
    assert float(metrics.psnr_scaled(*given)) == pytest.approx(values["psnr_rgb_gtmean_float"], abs=1e-9)
    # 18 pixels lie on half a level, where the golden value follows the noise of its sum
    assert float(metrics.de(given[0])) == pytest.approx(values["de_gray_bits"], abs=1e-4)


@pytest.mark.parametrize("colour", ["rgb", "grey", "y"])
def test_psnr_and_ssim_are_those_of_scikit_image(colour):
    a, b = plane(UNIT_A, colour), plane(UNIT_B, colour)
    assert float(metrics.psnr(B, A, colour=colour)) == pytest.approx(
        peak_signal_noise_ratio(a, b, data_range=1.0), abs=1e-9
    )
    want = structural_similarity(
        b,
        a,
        data_range=1.0,
        channel_axis=2 if colour == "rgb" else None,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert float(metrics.ssim(B, A, colour=colour)) == pytest.approx(want, abs=1e-9)


def test_equal_images():
    assert float(metrics.psnr(A, A)) == float("inf")
    assert float(metrics.ssim(A, A)) == 1
    for name in FROM_INPUT:
        assert float(METRICS[name](A, A)) == 0, name


def test_ssim_of_the_smallest_image_is_one_window():
    a, b = A[:11, :11], B[:11, :11]
    weight = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weight = np.outer(weight, weight)[..., None] / weight.sum() ** 2
    x, y = b / 255, a / 255
    mx, my = (weight * x).sum((0, 1)), (weight * y).sum((0, 1))
    cov = (weight * (x - mx) * (y - my)).sum((0, 1))
    vx, vy = (weight * (x - mx) ** 2).sum((0, 1)), (weight * (y - my) ** 2).sum((0, 1))
    want = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert float(metrics.ssim(b, a)) == pytest.approx(want.mean(), abs=1e-12)
    with refused(ValueError, "11x11", "12x10"):
        metrics.ssim(A[:10, :12], A[:10, :12])


@pytest.mark.parametrize("mean", ["luma", "rgb"])
def test_psnr_scaled(mean):
    colour = "grey" if mean == "luma" else "rgb"
    scaled = np.clip(UNIT_B * (plane(UNIT_A, colour).mean() / plane(UNIT_B, colour).mean()), 0, 1)
    want = -10 * np.log10(((scaled - UNIT_A) ** 2).mean())
    assert float(metrics.psnr_scaled(B, A, mean=mean)) == pytest.approx(want, abs=1e-9)
    # a wrong exposure is forgiven, and black stays black
    assert float(metrics.psnr_scaled(UNIT_A * 0.3, UNIT_A, mean=mean)) > 200
    black = np.zeros_like(UNIT_A)
    assert float(metrics.psnr_scaled(black, A, mean=mean)) == pytest.approx(float(metrics.psnr(black, A)))


# --- against the input


def test_hue_shift_is_that_of_scikit_image():
    before, after = rgb2lab(UNIT_A), rgb2lab(UNIT_B)
    angle = np.arctan2(after[..., 2], after[..., 1]) - np.arctan2(before[..., 2], before[..., 1])
    angle = np.abs((angle + np.pi) % (2 * np.pi) - np.pi)
    weight = np.minimum(np.hypot(before[..., 1], before[..., 2]), np.hypot(after[..., 1], after[..., 2]))
    weight[weight < 4] = 0
    assert (weight == 0).any()
    want = np.degrees((angle * weight).sum() / weight.sum())
    assert float(metrics.hue_shift(B, A)) == pytest.approx(want, abs=1e-6)


def test_hue_shift_of_known_colours():
    red, green = np.zeros((2, 2, 3, 3))
    red[..., 0], green[..., 1] = 1, 1
    (_, a0, b0), (_, a1, b1) = rgb2lab(red)[0, 0], rgb2lab(green)[0, 0]
    want = abs(np.degrees(np.arctan2(b1, a1) - np.arctan2(b0, a0)))
    assert float(metrics.hue_shift(green, red)) == pytest.approx(want, abs=1e-4)
    assert float(metrics.hue_shift(np.full((4, 4, 3), 0.3), np.full((4, 4, 3), 0.7))) == 0


def test_clipping_and_rise():
    before, after = np.full((5, 8, 3), 0.5), np.full((5, 8, 3), 0.6)
    before[0, 0] = 1
    after[0, :4, 1] = 0.995
    assert float(metrics.new_clipping(after, before)) == pytest.approx(100 * 3 / 40)
    assert float(metrics.rise(after, before)) == pytest.approx(after.mean() - before.mean())


@pytest.mark.parametrize("size", [(120, 175), (41, 60)])
def test_loe_counts_every_pair(size):
    after, before = (
        np.clip(image[: size[0], : size[1]], 0, 255) for image in (picture(120, 175, 1), picture(120, 175, 2))
    )
    step = max(1, min(size) // 50)

    def samples(image):
        top = image.max(-1).astype(int)
        rows = range(step - 1, size[0], step)
        columns = range(step - 1, size[1], step)
        return np.array(
            [[top[max(0, r - 7) : r + 8, max(0, c - 7) : c + 8].max() for c in columns] for r in rows]
        )

    x, y = samples(after), samples(before)
    counts = [((x >= a) != (y >= b)).sum() for a, b in zip(x.ravel(), y.ravel(), strict=True)]
    assert len(counts) > 2000
    assert float(metrics.loe(after, before)) == pytest.approx(np.mean(counts), abs=1e-9)


def test_loe_sees_order_alone():
    ramp = np.linspace(0, 255, 128).astype(np.uint8)[None, :, None].repeat(128, 0).repeat(3, 2)
    assert float(metrics.loe(ramp // 2 + 90, ramp // 2)) == 0
    assert float(metrics.loe(255 - ramp, ramp)) > 1000


# --- the image by itself


def test_de():
    grey = np.floor(A @ [299, 587, 114] / 1000 + 0.5 + 1e-9).astype(int)
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    share = share[share > 0]
    assert float(metrics.de(A)) == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-9)
    assert float(metrics.de(np.full((7, 5, 3), 90, np.uint8))) == 0
    assert float(metrics.de(np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2))) == 8


def test_half_a_level_goes_up():
    # 299 R + 587 G + 114 B = 500 mod 1000, all the ways that there are for R < 40
    red, green, blue = np.mgrid[:40, :256, :256].reshape(3, -1)
    half = (299 * red + 587 * green + 114 * blue) % 1000 == 500
    colours = np.stack([red[half], green[half], blue[half]], -1).astype(np.uint8)
    assert len(colours) > 1000
    got = metrics.planes.grey_levels(metrics.planes.batch_of(colours[None]))[0, 0].numpy()
    assert np.array_equal(got, (colours.astype(int) @ [299, 587, 114] + 500) // 1000)


@pytest.mark.parametrize("block", [8, 5])
def test_eme(block):
    grey = np.floor(A @ [299, 587, 114] / 1000 + 0.5 + 1e-9)
    grey[:20, :20] = 0
    image = np.repeat(grey[..., None], 3, 2).astype(np.uint8)
    found = []
    for y in range(0, 101 - block + 1, block):
        for x in range(0, 155 - block + 1, block):
            tile = grey[y : y + block, x : x + block]
            found.append(20 * np.log(tile.max() / tile.min()) if tile.min() > 0 else 0)
    assert float(metrics.eme(image, block=block)) == pytest.approx(np.mean(found), abs=1e-9)


def test_eme_refuses_wrong_blocks():
    with refused(ValueError, "8x8", "9x7"):
        metrics.eme(A[:7, :9])
    with refused(ValueError, "block must be at least 1, got 0"):
        metrics.eme(A, block=0)
    with refused(TypeError, "block must be an integer, got 8.0"):
        metrics.eme(A, block=8.0)


# --- NIQE


def plain_features(levels):
    """The published computation, block by block."""
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    shapes = np.arange(0.2, 10.001, 0.001)
    ratios = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))

    def fit(values):
        left, right = (np.sqrt((values[s] ** 2).mean()) for s in (values < 0, values > 0))
        skew = left / right
        r = np.abs(values).mean() ** 2 / (values**2).mean()
        r *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
        alpha = shapes[np.argmin((ratios - r) ** 2)]
        scale = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
        return alpha, left * scale, right * scale

    def normalised(image):
        mean = convolve(image, kernel, mode="nearest")
        sigma = np.sqrt(np.abs(convolve(image * image, kernel, mode="nearest") - mean**2))
        return (image - mean) / (sigma + 1), sigma

    def cubic(t):
        t = abs(t)
        return 1.5 * t**3 - 2.5 * t**2 + 1 if t <= 1 else -0.5 * (t - 1) * (t - 2) ** 2

    def halved(image):
        for _ in range(2):
            n = len(image)
            rows = []
            for u in range(n // 2):
                centre = 2 * u + 0.5
                near = np.arange(int(np.floor(centre)) - 4, int(np.floor(centre)) + 6)
                weight = np.array([cubic((k - centre) / 2) if abs(k - centre) < 4 else 0 for k in near])
                mirrored = np.where(near < 0, -near - 1, np.where(near >= n, 2 * n - 1 - near, near))
                rows.append((weight / weight.sum()) @ image[mirrored])
            image = np.array(rows).T
        return image

    height, width = (size // 96 * 96 for size in levels.shape)
    image = levels[:height, :width]
    found, sharp = [], []
    for scale in (1, 2):
        normal, sigma = normalised(image)
        side = 96 // scale
        part = []
        for y in range(0, height // scale, side):
            for x in range(0, width // scale, side):
                block = normal[y : y + side, x : x + side]
                alpha, left, right = fit(block)
                row = [alpha, (left + right) / 2]
                for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
                    alpha, left, right = fit(block * np.roll(block, shift, (0, 1)))
                    row += [alpha, (right - left) * gamma(2 / alpha) / gamma(1 / alpha), left, right]
                part.append(row)
                if scale == 1:
                    sharp.append(sigma[y : y + side, x : x + side].mean())
        found.append(part)
        image = halved(image)
    return np.concatenate(found, 1), np.array(sharp)


def textured(height=200, width=300, seed=0):
    """Noise of several scales, grey levels `[H, W]`."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(0, 30, (height, width))
    coarse = convolve(generator.normal(0, 200, (height, width)), np.ones((9, 9)) / 81)
    return np.clip(np.rint(120 + noise * np.linspace(0.2, 1, width) + coarse), 0, 255)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_niqe_features_are_the_published_ones():
    levels = textured()
    levels[:110, :110] = 17  # a flat block: the published code has NaN there, and the first shape
    got, sharp = block_features(torch.from_numpy(levels))
    want, want_sharp = plain_features(levels)
    assert got.shape == (6, 36)
    assert np.isnan(want[0]).any()
    assert not np.isnan(want[1:]).any()
    np.testing.assert_allclose(sharp, want_sharp, atol=1e-6)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("luma", ["grey", "y"])
def test_niqe_is_the_distance_of_two_gaussians(luma):
    levels = textured()
    image = np.repeat(levels[..., None], 3, 2).astype(np.uint8)
    model = metrics.read_niqe_model()
    used = levels if luma == "grey" else np.rint(levels * 219 / 255 + 16)
    features = plain_features(used)[0]
    difference = features.mean(0) - model.mean.numpy()
    middle = (np.cov(features, rowvar=False) + model.covariance.numpy()) / 2
    want = np.sqrt(difference @ np.linalg.pinv(middle) @ difference)
    assert float(metrics.niqe(image, luma=luma)) == pytest.approx(want, rel=1e-6)


@pytest.mark.skipif(not PHOTO.is_file(), reason="docs/photos is not here")
def test_niqe_prefers_the_photograph_to_noise_and_blur():
    photo = Image.open(PHOTO)
    photo.thumbnail((480, 480))
    sharp = np.asarray(photo)
    noisy = np.clip(sharp + np.random.default_rng(0).normal(0, 15, sharp.shape), 0, 255).astype(np.uint8)
    blurred = photo.filter(ImageFilter.GaussianBlur(2))
    best = float(metrics.niqe(sharp))
    assert best < 6
    assert float(metrics.niqe(noisy)) > best + 1
    assert float(metrics.niqe(blurred)) > best + 1


def test_half_size_is_that_of_a_bicubic_filter():
    levels = textured(192, 96)
    want = Image.fromarray(levels.astype(np.float32)).resize((48, 96), Image.Resampling.BICUBIC)
    # the border, where Pillow cuts the kernel, aside
    got = _halved(torch.from_numpy(levels)).numpy()[2:-2, 2:-2]
    np.testing.assert_allclose(got, np.asarray(want)[2:-2, 2:-2], atol=1e-3)


def test_niqe_leaves_flat_blocks_out_and_wants_two():
    levels = textured(96, 288)
    levels[:, :100] = 0
    image = np.repeat(levels[..., None], 3, 2).astype(np.uint8)
    assert np.isfinite(float(metrics.niqe(image)))
    with refused(ValueError, "two blocks", "had 2 blocks, 1 of them"):
        metrics.niqe(image[:, :192])
    with refused(ValueError, "96x96", "95x200"):
        metrics.niqe(np.zeros((200, 95, 3), np.uint8))
    with refused(ValueError, "luma must be one of grey, y, got 'Y'"):
        metrics.niqe(image, luma="Y")


def test_pristine_models_from_files(tmp_path):
    ours = metrics.read_niqe_model()
    assert ours.name == "fastllie"
    assert torch.equal(ours.covariance, ours.covariance.T)
    assert torch.linalg.eigvalsh(ours.covariance).min() > 0
    path = tmp_path / "other.npz"
    np.savez(path, mu_pris_param=ours.mean[None].numpy(), cov_pris_param=ours.covariance.numpy())
    image = np.repeat(textured()[..., None], 3, 2).astype(np.uint8)
    assert float(metrics.niqe(image, model=path)) == float(metrics.niqe(image))
    assert metrics.choose(["niqe"], niqe_model=path)[0].label.endswith("pristine model: other.npz")
    assert METRICS["niqe"].label.endswith("pristine model: fastllie")
    with refused(FileNotFoundError, "no.npz"):
        metrics.niqe(image, model=tmp_path / "no.npz")
    np.savez(path, mu=ours.mean.numpy())
    with refused(ValueError, "other.npz", "mu_pris_param"):
        metrics.niqe(image, model=path)
    save_file({"mean": torch.zeros(3), "covariance": torch.zeros(3, 3)}, tmp_path / "small.safetensors")
    with refused(ValueError, "small.safetensors", "(3, 3)"):
        metrics.niqe(image, model=tmp_path / "small.safetensors")
    (tmp_path / "model.mat").write_bytes(b"")
    with refused(ValueError, "wanted an .npz or a .safetensors"):
        metrics.niqe(image, model=tmp_path / "model.mat")


@needs_weights
def test_the_published_pristine_model_reads_and_differs():
    published = SHARED / "weights" / "niqe" / "niqe_pris_params.npz"
    image = np.repeat(textured()[..., None], 3, 2).astype(np.uint8)
    assert float(metrics.niqe(image, model=published)) != pytest.approx(float(metrics.niqe(image)), rel=1e-3)


def test_the_pristine_model_is_fitted_on_the_sharp_blocks(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    lines = ["file,author,licence"]
    for seed, licence in enumerate(("CC-BY-4.0", "CC-BY-SA-3.0", "CC0-1.0")):
        Image.fromarray(textured(seed=seed).astype(np.uint8)).convert("RGB").save(photos / f"{seed}.png")
        lines.append(f"{seed}.png,Author {seed},{licence}")
    (photos / "photos.csv").write_text("\n".join(lines))
    assert niqe_model.main(["--photos", str(photos), "-o", str(tmp_path / "out")]) == 0
    model = metrics.read_niqe_model(tmp_path / "out" / "niqe.safetensors")
    kept = []
    for seed in range(2):
        features, sharp = plain_features(textured(seed=seed))
        kept.append(features[sharp > 0.75 * sharp.max()])
    kept = np.concatenate(kept)
    assert 2 <= len(kept) < 12
    np.testing.assert_allclose(model.mean, kept.mean(0), atol=1e-6)
    np.testing.assert_allclose(model.covariance, np.cov(kept, rowvar=False), atol=1e-6)
    card = (tmp_path / "out" / "niqe.md").read_text()
    listed = (tmp_path / "out" / "photographs.md").read_text()
    assert "(photographs.md)" in card
    assert "| 1.png | Author 1 | CC-BY-SA-3.0 |" in listed
    assert "2.png" not in listed
    assert f"{len(kept)} blocks of" in card
    Image.new("RGB", (95, 300)).save(photos / "0.png")
    capsys.readouterr()
    assert niqe_model.main(["--photos", str(photos), "-o", str(tmp_path / "out")]) == 2
    assert "0.png" in capsys.readouterr().err


# --- LPIPS

SHAPES = {
    0: (64, 3, 11, 11),
    3: (192, 64, 5, 5),
    6: (384, 192, 3, 3),
    8: (256, 384, 3, 3),
    10: (256, 256, 3, 3),
}


@pytest.fixture(scope="module")
def random_lpips(tmp_path_factory):
    """Files of LPIPS with random numbers in them: features as safetensors, linear layers as .pth."""
    generator = torch.Generator().manual_seed(0)
    features, linear = {}, {}
    for place, (layer, shape) in enumerate(SHAPES.items()):
        features[f"features.{layer}.weight"] = (
            torch.randn(shape, generator=generator) / (shape[1] * shape[2] ** 2) ** 0.5
        )
        features[f"features.{layer}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
        linear[f"lin{place}.model.1.weight"] = torch.rand(1, shape[0], 1, 1, generator=generator)
    folder = tmp_path_factory.mktemp("lpips")
    save_file({**features, "classifier.1.weight": torch.zeros(2)}, folder / "alexnet.safetensors")
    torch.save(linear, folder / "alex.pth")
    return folder / "alexnet.safetensors", folder / "alex.pth", features, linear


def plain_lpips(a, b, features, linear):
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def layers(image):
        z = torch.from_numpy(image.astype(np.float32) / 255 * 2 - 1)
        z = ((z - shift) / scale).permute(2, 0, 1)[None]
        for layer, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            if layer in (3, 6):
                z = F.max_pool2d(z, 3, 2)
            weight, bias = features[f"features.{layer}.weight"], features[f"features.{layer}.bias"]
            z = F.conv2d(z, weight, bias, stride, padding).relu()
            yield z / (z.norm(dim=1, keepdim=True) + 1e-10)

    return sum(
        float(F.conv2d((x - y) ** 2, linear[f"lin{place}.model.1.weight"]).mean())
        for place, (x, y) in enumerate(zip(layers(a), layers(b), strict=True))
    )


def test_lpips(random_lpips):
    *weights, features, linear = random_lpips
    want = plain_lpips(B, A, features, linear)
    assert float(metrics.lpips(B, A, weights=tuple(weights))) == pytest.approx(want, rel=1e-4)
    network = metrics.LPIPS(*weights)
    both = network(np.stack([B, A]), np.stack([A, A]))
    assert both[0].item() == pytest.approx(want, rel=1e-4)
    assert both[1].item() == 0
    assert metrics.lpips(A[:31, :31], B[:31, :31], weights=network).isfinite().all()
    with refused(ValueError, "31x31", "31x30"):
        network(A[:30, :31], B[:30, :31])


@needs_weights
def test_lpips_with_the_published_weights():
    folder = SHARED / "weights" / "lpips"
    network = metrics.LPIPS(folder / "alexnet_features_torchvision_keys.pth", folder / "alex.pth")
    generator = np.random.default_rng(0)
    grades = [
        np.clip(A + generator.normal(0, sigma, A.shape), 0, 255).astype(np.uint8) for sigma in (4, 12, 36)
    ]
    found = [float(network(image, A)) for image in grades]
    assert 0 < found[0] < found[1] < found[2] < 1.5
    assert float(network(A, A)) == 0


def test_lpips_says_how_to_get_its_weights(random_lpips, tmp_path):
    features, linear, *_ = random_lpips
    with refused(ValueError, "alexnet-owt", "--lpips-weights", "weights="):
        metrics.lpips(A, B)
    with refused(FileNotFoundError, "gone.pth", "alexnet-owt"):
        metrics.lpips(A, B, weights=(tmp_path / "gone.pth", linear))
    with refused(ValueError, "alexnet.safetensors", "lin0.model.1.weight", "not there"):
        metrics.lpips(A, B, weights=(features, features))
    (tmp_path / "page.pth").write_text("<html>")
    with refused(ValueError, "page.pth"):
        metrics.lpips(A, B, weights=(features, tmp_path / "page.pth"))
    torch.save({"lin0.model.1.weight": torch.zeros(1, 3, 1, 1)}, tmp_path / "vgg.pth")
    with refused(ValueError, "vgg.pth", "(1, 64, 1, 1)", "(1, 3, 1, 1)"):
        metrics.lpips(A, B, weights=(features, tmp_path / "vgg.pth"))


# --- every kind of image


@pytest.mark.parametrize("name", [name for name in METRICS if name != "lpips"])
def test_every_kind_of_image(name, tmp_path):
    metric = METRICS[name]
    a, b = picture(97, 197), picture(97, 197, 5)
    want = metric(a, b)
    assert want.dtype == torch.float64
    assert want.shape == (1,)
    Image.fromarray(a).save(tmp_path / "a.png")
    other = torch.from_numpy(b).permute(2, 0, 1)
    chw = torch.from_numpy(a).permute(2, 0, 1)
    for kind in (Image.fromarray(a), tmp_path / "a.png", chw, chw[None], chw.double() / 255, a / 255):
        assert float(metric(kind, other)) == pytest.approx(float(want), rel=1e-12)
    single = metric(chw.float() / 255, other)
    assert single.dtype == torch.float64
    assert float(single) == pytest.approx(float(want), rel=1e-5)
    # strides and batches
    wide = torch.stack([chw, other, chw.flip(1)]).to(memory_format=torch.channels_last)
    second = torch.stack([other, chw, other])
    one_by_one = [float(metric(x, y)) for x, y in zip(wide, second, strict=True)]
    assert metric(wide, second).tolist() == pytest.approx(one_by_one, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_measured_as_they_are(dtype):
    x = (torch.from_numpy(A).permute(2, 0, 1) / 255).to(dtype)
    y = torch.from_numpy(UNIT_B).permute(2, 0, 1)
    assert float(metrics.psnr(x, y)) == float(metrics.psnr(x.double(), y))


def test_the_given_images_stay_as_they_are():
    x, y = torch.from_numpy(UNIT_A).permute(2, 0, 1), torch.from_numpy(UNIT_B).permute(2, 0, 1)
    before = x.clone(), y.clone()
    for name in METRICS:
        if name not in ("lpips", "niqe"):
            METRICS[name](x, y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.gpu
def test_a_gpu_measures_the_same():
    a, b = (torch.from_numpy(picture(97, 197, seed)).permute(2, 0, 1) for seed in (0, 5))
    for name in METRICS:
        if name != "lpips":
            got = METRICS[name](a.cuda(), b)
            assert got.device.type == "cuda"
            assert float(got) == pytest.approx(float(METRICS[name](a, b)), rel=1e-9), name


def test_nothing_asks_for_gradients():
    x = (torch.from_numpy(UNIT_A).permute(2, 0, 1)).requires_grad_()
    assert not metrics.psnr(x, UNIT_B).requires_grad


@pytest.mark.parametrize("name", [*REFERENCED, *FROM_INPUT])
def test_wrong_pairs_are_refused(name):
    metric = METRICS[name]
    with refused(ValueError, "output has 155x101 pixels", f"{metric.against} 155x100 pixels"):
        metric(A, B[:-1])
    with refused(ValueError, f"{metric.against}: ", "NaN"):
        metric(A, np.full(A.shape, np.nan))
    with refused(TypeError, "output: ", "list"):
        metric([1, 2], A)
    with refused(ValueError, "2 of 155x101"):
        metric(A, np.stack([A, A]))
    with refused(ValueError, "output: ", "divide by 255"):
        metric(A.astype(np.float32), A)


def test_words_that_mean_nothing_are_refused():
    with refused(ValueError, "colour must be one of rgb, y, grey, got 'luma'"):
        metrics.psnr(A, B, colour="luma")
    with refused(ValueError, "colour must be"):
        metrics.ssim(A, B, colour="gray")
    with refused(ValueError, "mean must be one of luma, rgb, got 'y'"):
        metrics.psnr_scaled(A, B, mean="y")


# --- the table


def test_labels_say_what_makes_values_differ():
    assert fastllie.metrics is metrics
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.against in ("reference", "input", None)
        assert metric.better in ("higher", "lower", "near 0")
        assert metric.label in metric.protocol
    for part in ("11x11", "1.5", "RGB", "valid", "range 1", "population"):
        assert part in METRICS["ssim"].label


def test_choose():
    def names(*given, **settings):
        return [metric.name for metric in metrics.choose(*given, **settings)]

    assert names(given=()) == ["niqe", "de", "eme"]
    assert names(given=("reference",)) == [
        "psnr",
        "ssim",
        "psnr_scaled",
        "psnr_scaled_rgb",
        "niqe",
        "de",
        "eme",
    ]
    assert names(given=("input",)) == ["niqe", "loe", "de", "eme", "hue_shift", "new_clipping", "rise"]
    assert names(["ssim_y", "psnr", "ssim_y"]) == ["ssim_y", "psnr"]
    with refused(ValueError, "unknown metric 'sim'", "ssim"):
        names(["sim"])
    with refused(ValueError, "'hue_shift' compares with the input"):
        names(["hue_shift"], given=("reference",))
    with refused(ValueError, "alexnet-owt"):
        names(["lpips"])


def test_choose_binds_the_weights(random_lpips):
    features, linear, *_ = random_lpips
    chosen = metrics.choose(lpips_weights=(features, linear))
    metric = next(metric for metric in chosen if metric.name == "lpips")
    assert float(metric(A, A)) == 0
