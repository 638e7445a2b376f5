"""The table of metrics: what each is called, what it says on its label, what it has to be given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from fastllie.methods import unknown
from fastllie.metrics.change import hue_shift, loe, new_clipping, rise
from fastllie.metrics.content import de, eme
from fastllie.metrics.fidelity import psnr, psnr_scaled, ssim
from fastllie.metrics.naturalness import SHIPPED_NAME, niqe, read_niqe_model
from fastllie.metrics.perceptual import HOW, LPIPS, lpips
from fastllie.metrics.planes import FilePath


@dataclass(frozen=True)
class Metric:
    """A metric with the protocol that its values hold for.

    Attributes:
        name: One word, as `--metrics` takes it.
        label: Window, colour, range and whatever else makes two values of the same name differ.
        unit: What a value counts, "" for none.
        against: What the output is compared with: "reference", "input", or None for itself alone.
        better: "higher", "lower", or "near 0".
        decimals: Places behind the point that a table shows.
        function: The function of this package, with the keywords of this protocol.
        usual: Whether it is measured when no metrics are named; variants of the others are not.
    """

    name: str
    label: str
    unit: str
    against: str | None
    better: str
    decimals: int
    function: Callable[..., Tensor]
    usual: bool = True

    def __call__(self, output: object, other: object = None) -> Tensor:
        """Values `[B]` of `output` and what it is compared with, under the label's protocol."""
        return self.function(output) if self.against is None else self.function(output, other)

    @property
    def protocol(self) -> str:
        """The label with unit and direction, as it stands under a table."""
        unit = f" [{self.unit}]" if self.unit else ""
        return f"{self.label}{unit}; {self.better} is better"


_WINDOW = "11x11 Gaussian σ=1.5, population covariance, valid window, range 1"
_GREY, _Y = "BT.601 grey 0..1, unrounded", "BT.601 Y 16..235, unrounded"
_SCALED = "PSNR after scaling by the ratio of {} means to the reference, clipped, unrounded, RGB, range 1"
_NIQE = "NIQE, 96x96 blocks, BT.601 grey 0..255 rounded, pristine model: {}"
_LOE = "LOE, max of RGB rounded to 8 bits, 15x15 local maximum, every floor(shorter side / 50)-th pixel"
_EME = "EME, 20 ln(max / min) of 8x8 blocks of BT.601 grey rounded to 256 levels, 0 where min = 0"
_HUE = "hue shift, CIELAB (D65) hue angle against the input, weighted by the smaller chroma, 0 under 4"
_CLIPPING = "new clipping, pixels with a channel above 0.99, minus those of the input"


def _psnr(name: str, label: str, function: Callable[..., Tensor], usual: bool = True) -> Metric:
    return Metric(name, label, "dB", "reference", "higher", 3, function, usual)


def _ssim(name: str, planes: str, function: Callable[..., Tensor], usual: bool = True) -> Metric:
    return Metric(name, f"SSIM, {planes}, {_WINDOW}", "", "reference", "higher", 4, function, usual)


_ROWS = (
    _psnr("psnr", "PSNR, RGB, range 1", psnr),
    _ssim("ssim", "RGB mean", ssim),
    _psnr("psnr_scaled", _SCALED.format("BT.601 luma"), psnr_scaled),
    _psnr("psnr_scaled_rgb", _SCALED.format("RGB"), partial(psnr_scaled, mean="rgb")),
    Metric("lpips", "LPIPS v0.1, AlexNet, RGB, full size", "", "reference", "lower", 4, lpips),
    Metric("niqe", _NIQE.format(SHIPPED_NAME), "", None, "lower", 3, niqe),
    Metric("loe", _LOE, "samples", "input", "lower", 1, loe),
    Metric("de", "DE, entropy of BT.601 grey rounded to 256 levels", "bits", None, "higher", 3, de),
    Metric("eme", _EME, "", None, "higher", 2, eme),
    Metric("hue_shift", _HUE, "°", "input", "lower", 2, hue_shift),
    Metric("new_clipping", _CLIPPING, "% of the pixels", "input", "lower", 3, new_clipping),
    Metric("rise", "rise, mean of RGB minus that of the input, range 1", "", "input", "near 0", 4, rise),
    _psnr("psnr_grey", f"PSNR, {_GREY}, range 1", partial(psnr, colour="grey"), usual=False),
    _psnr("psnr_y", f"PSNR, {_Y}, range 1", partial(psnr, colour="y"), usual=False),
    _ssim("ssim_grey", _GREY, partial(ssim, colour="grey"), usual=False),
    _ssim("ssim_y", _Y, partial(ssim, colour="y"), usual=False),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ROWS}


def choose(
    names: Sequence[str] | None = None,
    *,
    given: Sequence[str] = ("reference", "input"),
    niqe_model: FilePath | None = None,
    lpips_weights: tuple[FilePath, FilePath] | None = None,
) -> list[Metric]:
    """Metrics by name, or all usual ones for which there is what they need; with weights and models read.

    Args:
        names: Names of `METRICS`.
        given: What outputs can be compared with.
        niqe_model: A pristine model in place of the one that ships; the label names it.
        lpips_weights: The two files of LPIPS, without which it is left out, or an error where it was named.

    Raises:
        ValueError: an unknown name, or a metric that needs what is not given.
        FileNotFoundError, ValueError: a model or weights that cannot be read.
    """
    table = dict(METRICS)
    if niqe_model is not None:
        model = read_niqe_model(niqe_model)
        table["niqe"] = replace(
            table["niqe"], label=_NIQE.format(model.name), function=partial(niqe, model=model)
        )
    if lpips_weights is not None:
        table["lpips"] = replace(table["lpips"], function=LPIPS(*lpips_weights))
    if names is None:
        names = [
            metric.name
            for metric in table.values()
            if metric.usual
            and (metric.against is None or metric.against in given)
            and (metric.name != "lpips" or lpips_weights is not None)
        ]
    for name in names:
        if name not in table:
            raise ValueError(unknown("metric", name, table))
        against = table[name].against
        if against is not None and against not in given:
            raise ValueError(
                f"the metric {name!r} compares with the {against}, and no {against} images were given"
            )
    if "lpips" in names and lpips_weights is None:
        raise ValueError(HOW)
    return [table[name] for name in dict.fromkeys(names)]
