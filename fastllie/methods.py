"""The table of methods: which network, which weights, which options, and where each comes from."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args

from fastllie import markup

# for type checkers, which find a misspelt name before it runs; METHODS has the same
Method = Literal["dawn", "enlightengan", "nerco", "sci", "zerodce", "zerodce++"]


@dataclass(frozen=True)
class Variant:
    """One file of weights that the package ships, in `fastllie/weights/`.

    `parameters` are those of its network where this is narrower than the published one, else None.
    """

    name: str
    file: str
    provenance: str
    licence: str
    parameters: int | None = None


@dataclass(frozen=True)
class Option:
    """A keyword of the network's constructor that `enhance`, `load` and `Enhancer` accept.

    A default of None leaves the choice to the file of weights.
    """

    name: str
    default: Any
    meaning: str


@dataclass(frozen=True)
class MethodInfo:
    """What there is to know about a method; `print` it.

    Attributes:
        name: The spelling that every function and the command line take.
        model: The network's class as "module:class", imported on first use.
        parameters: Of the published network; a narrower one of ours tells its own in its variant.
        halo: Pixels around an output pixel that its value depends on, with default options and weights; None
            where that is the whole image. Of `dawn` beside what it sees of the whole, see its class.
        weights: The variants that ship; the first one is the default. None: a path has to be given.
        training: What training the method takes.
        denoises: Whether it takes noise out.
    """

    name: Method
    title: str
    paper: str
    model: str
    parameters: int
    halo: int | None
    weights: tuple[Variant, ...]
    options: tuple[Option, ...]
    training: str
    denoises: bool = False

    def __str__(self) -> str:
        rows = [f"  {label:<12}{text}" for label, text in self._rows()]
        return "\n".join([f"{self.name}: {self.title}", *rows])

    def _repr_html_(self) -> str:
        return markup.table(self._rows(), title=f"{self.name}: {self.title}", head=False)

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("paper", self.paper), ("parameters", f"{self.parameters:,}")]
        for place, variant in enumerate(self.weights):
            default = " (default)" if place == 0 else ""
            narrower = f"; {variant.parameters:,} parameters" if variant.parameters else ""
            told = f"{variant.name}{default}: {variant.provenance}; {variant.licence}{narrower}"
            rows.append(("weights", told))
        rows += [("option", f"{o.name} = {o.default!r}: {o.meaning}") for o in self.options]
        rows.append(("training", self.training))
        return rows


_OURS = "trained from scratch by fastllie on freely licensed photographs; the card beside the file lists them"
_UNPAIRED = "photographs alone, dark and well-exposed; no pairs, no labels"

METHODS: Mapping[str, MethodInfo] = {
    row.name: row
    for row in (
        MethodInfo(
            name="zerodce",
            title="Zero-DCE",
            paper="Guo et al., Zero-Reference Deep Curve Estimation for Low-Light Image Enhancement,"
            " CVPR 2020, arXiv 2001.06826",
            model="fastllie.models:ZeroDCE",
            parameters=79_416,
            halo=7,
            weights=(
                Variant("fastllie", "zerodce.safetensors", _OURS, "Apache-2.0"),
                Variant("metered", "zerodce-metered.safetensors", _OURS, "Apache-2.0"),
            ),
            options=(),
            training=_UNPAIRED,
        ),
        MethodInfo(
            name="zerodce++",
            title="Zero-DCE++",
            paper="Li et al., Learning to Enhance Low-Light Image via Zero-Reference Deep Curve Estimation,"
            " TPAMI 2021, arXiv 2103.00860",
            model="fastllie.models:ZeroDCEPlusPlus",
            parameters=10_561,
            halo=7,
            weights=(
                Variant("fastllie", "zerodcepp.safetensors", _OURS, "Apache-2.0"),
                Variant("metered", "zerodcepp-metered.safetensors", _OURS, "Apache-2.0"),
            ),
            options=(
                Option(
                    "scale", 1, "the network sees the image reduced by this factor; 12 in the published test"
                ),
            ),
            training=_UNPAIRED,
        ),
        MethodInfo(
            name="sci",
            title="SCI",
            paper="Ma et al., Toward Fast, Flexible, and Robust Low-Light Image Enhancement, CVPR 2022,"
            " arXiv 2204.10137",
            model="fastllie.models:SCI",
            parameters=258,
            halo=3,
            weights=(
                Variant("strong", "sci-strong.safetensors", _OURS, "Apache-2.0"),
                Variant("mild", "sci-mild.safetensors", _OURS, "Apache-2.0"),
                Variant("metered", "sci-metered.safetensors", _OURS, "Apache-2.0"),
            ),
            options=(
                Option(
                    "padding",
                    None,
                    "'zeros' as the published network, 'reflect' leaves no coloured frame;"
                    " None is what the weights were trained with",
                ),
            ),
            training="dark photographs alone; no pairs, no labels",
        ),
        MethodInfo(
            name="enlightengan",
            title="EnlightenGAN",
            paper="Jiang et al., EnlightenGAN: Deep Light Enhancement Without Paired Supervision, TIP 2021,"
            " arXiv 1906.06972",
            model="fastllie.models:EnlightenGAN",
            parameters=8_636_675,
            halo=144,
            weights=(Variant("fastllie", "enlightengan.safetensors", _OURS, "Apache-2.0", 2_161_795),),
            options=(
                Option(
                    "align_corners",
                    None,
                    "of the upsampling: False as PyTorch since 0.4 reads the published code, True as 0.3 did,"
                    " which makes tiles approximate; None is what the weights were trained with",
                ),
                Option(
                    "halve_wide",
                    False,
                    "images wider than 2200 pixels are computed at half their size, as published: blurred",
                ),
            ),
            training=_UNPAIRED,
        ),
        MethodInfo(
            name="nerco",
            title="NeRCo",
            paper="Yang et al., Implicit Neural Representation for Cooperative Low-light Image Enhancement,"
            " ICCV 2023, arXiv 2303.11722",
            model="fastllie.models:NeRCo",
            parameters=23_295_403,
            halo=None,
            weights=(
                Variant("fastllie", "nerco.safetensors", _OURS, "Apache-2.0", 801_371),
                Variant("logits", "nerco-logits.safetensors", _OURS, "Apache-2.0", 801_371),
            ),
            options=(
                Option(
                    "size_mode",
                    "reflect",
                    "'reflect' mirrors to sides that are multiples of 4 and cuts that away again; 'official'"
                    " resizes to the nearest such size, as the published test",
                ),
            ),
            training=_UNPAIRED,
        ),
        MethodInfo(
            name="dawn",
            title="dawn",
            paper="our own, described in docs/dawn.md",
            model="fastllie.models:Dawn",
            parameters=157_540,
            halo=64,
            weights=(Variant("fastllie", "dawn.safetensors", _OURS, "Apache-2.0"),),
            options=(
                Option("denoise", 1.0, "how much of the noise is taken out, from 0 to 1"),
                Option(
                    "exposure",
                    None,
                    "the mean luma that is aimed at, between 0 and 1; None leaves it to the network",
                ),
            ),
            training="well-exposed photographs alone; no pairs, no labels",
            denoises=True,
        ),
    )
}


def list_methods() -> list[Method]:
    """The names of all methods, sorted."""
    return list(get_args(Method))


def info(method: str) -> MethodInfo:
    """Look a method up: paper, parameters, weights with provenance and licence, options, training needs.

    Raises:
        TypeError: `method` is not a string.
        ValueError: an unknown method; the message has the close matches and the full list.
    """
    if not isinstance(method, str):
        raise TypeError(f"method must be a string, got {type(method).__name__}")
    if method not in METHODS:
        raise ValueError(unknown("method", method, list_methods()))
    return METHODS[method]


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not in the table: the close ones, and all."""
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known)
    guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"unknown {kind} {name!r}; {guess}known: {', '.join(known)}"


def options_of(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method: those given, and the defaults of the others.

    Raises:
        TypeError: an option that the method does not have.
    """
    row = info(method)
    names = [option.name for option in row.options]
    for name in given:
        if name not in names:
            has = f"its options are: {', '.join(names)}" if names else "it has no options"
            raise TypeError(f"{method} has no option {name!r}; {has}")
    return {option.name: given.get(option.name, option.default) for option in row.options}


def model_class(method: str) -> Any:
    """The network's class, imported now."""
    module, name = info(method).model.split(":")
    return getattr(import_module(module), name)
