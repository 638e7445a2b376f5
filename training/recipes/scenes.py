"""How whole dark scenes are made of photographs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PairWeights:
    """The weight of each loss of a brightened frame and its target, see `fastllie.training.losses.scenes`.

    A zero leaves it out.
    """

    difference: float = 0.0
    matched_difference: float = 0.0
    structure: float = 0.0
    chroma: float = 0.0
    overshoot: float = 0.0
    mean: float = 0.0
    local_contrast: float = 0.0
    flatness: float = 0.0


@dataclass(frozen=True)
class Scenes:
    """How whole scenes are made of photographs; see `fastllie.training.scenes` and `...camera`.

    Args:
        size: Height and width of a scene.
        bright_share: Share of the frames that are well exposed, and to be left alone.
        bright_exposures: Range of their exposure in stops.
        over_share: Share of those that are exposed too long.
        over_exposures: Range of their exposure in stops.
        exposures: Range of the exposure of the dark frames in stops.
        lift: Exposures in stops at which a frame stays as it is, and at which it is lifted to the photograph.
        range_share: Share of the dark frames whose highlights get back what the photograph's tone curve took.
        ranges: Range of how much of white that is: white was 1 / (1 - this) times as bright.
        mixed_share: Share of the dark frames that are lit in parts.
        ground_share: Share of those whose unlit part stays darker in the target too.
        backlit_share: Share of the dark frames that are exposed for what is bright in them: subjects before
            skies and windows.
        backlit: Range of the exposure of the rest of such a frame in stops.
        curved_share: Share of the dark frames whose light is raised to a power.
        curves: Range of that power.
        shadow_lift: Stops that the targets' darkest parts are lifted by, in frames of all kinds but nights.
        shadow_edge: The variance of luma from which a neighbourhood has an edge, that lifted shadows do not
            run over: the less, the fainter the rims that targets have, and the less contrast detail keeps.
            None: they run over it by some pixels.
        light_edge: Likewise of light that lies on what is bright, in frames that are lit in parts or exposed
            for what is bright in them: the less, the fainter the glow that is to be undone. None: it runs
            over edges by up to 16 pixels.
        dark_saturation: Saturation of the target of a frame that is nearly black, of the photograph's;
            photographs are edited more vividly than a long exposure comes out.
        dark_neutral: How far such a target is balanced to a grey mean, from 0 to 1, of all.
        lamp, lamp_share: Deviation in stops of the colours of coloured light that stays, and its share.
        cast, cast_share: Likewise of casts that are to be taken out.
        clean_share: Share of the frames without noise.
        shot_noise: Range of the variance of green's shot noise per unit of linear signal, log-uniform; the
            read noise follows from it.
        rows_share: Share of the noisy frames with noise that whole rows share.
        black: Largest deviation of the black level of a colour, of the linear full scale.
        jpeg_share, jpeg_quality: Share of the frames that pass through JPEG, and its quality.
        flat_share: Share of the scenes that are no photographs but flat tones with edges between them, lit by
            one light whatever `mixed_share` and `backlit_share` say.
        flat_clean_share: `clean_share` of those; None: the same. Noise hides a rim of a level from losses
            that compare pixels.
    """

    size: tuple[int, int] = (192, 288)
    bright_share: float = 0.17
    bright_exposures: tuple[float, float] = (-0.4, 0.3)
    over_share: float = 0.06
    over_exposures: tuple[float, float] = (0.5, 2.0)
    exposures: tuple[float, float] = (-7.8, -0.5)
    lift: tuple[float, float] = (-0.4, -1.2)
    range_share: float = 0.5
    ranges: tuple[float, float] = (0.3, 0.96)
    mixed_share: float = 0.4
    ground_share: float = 0.1
    backlit_share: float = 0.0
    backlit: tuple[float, float] = (-4.0, -1.0)
    curved_share: float = 0.2
    curves: tuple[float, float] = (1.3, 2.5)
    shadow_lift: float = 0.0
    shadow_edge: float | None = None
    light_edge: float | None = None
    dark_saturation: float = 1.0
    dark_neutral: float = 0.0
    lamp: float = 0.25
    lamp_share: float = 0.25
    cast: float = 0.1
    cast_share: float = 0.2
    clean_share: float = 0.2
    shot_noise: tuple[float, float] = (5e-6, 2e-3)
    rows_share: float = 0.25
    black: float = 1e-3
    jpeg_share: float = 0.25
    jpeg_quality: tuple[int, int] = (60, 98)
    flat_share: float = 0.0
    flat_clean_share: float | None = None


# Of networks that leave the exposure of a whole scene to a meter or to their norms, and learn how light lies
# in it
LIT_IN_PARTS = Scenes(
    mixed_share=0.3,
    backlit_share=0.15,
    shadow_lift=1.0,
    dark_saturation=0.85,
    dark_neutral=0.2,
)
