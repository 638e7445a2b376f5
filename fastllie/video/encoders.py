"""Which encoder of FFmpeg codes a result: that of the source's codec where there is one, near its quality."""

from typing import Any, NamedTuple

from fastllie.video.pixels import depth
from fastllie.video.reading import pyav


class Encoder(NamedTuple):
    """An encoder of FFmpeg and how its quality is set: near the source, and not many times its size."""

    name: str
    quality: float | None = None  # of `crf`, or of the quantizer with `quantizer`
    quantizer: bool = False
    options: tuple[tuple[str, str], ...] = ()


# codec of the source -> what may encode it, best first
_ENCODERS = {
    "h264": (Encoder("libx264", 18), Encoder("libopenh264")),
    "hevc": (Encoder("libx265", 20, options=(("x265-params", "log-level=error"),)),),
    "vp8": (Encoder("libvpx", 8, options=(("cpu-used", "4"),)),),
    "vp9": (Encoder("libvpx-vp9", 22, options=(("cpu-used", "4"), ("row-mt", "1"))),),
    "av1": (Encoder("libsvtav1", 24), Encoder("libaom-av1", 22, options=(("cpu-used", "6"),))),
    "mpeg4": (Encoder("mpeg4", 2, quantizer=True),),
    "mpeg2video": (Encoder("mpeg2video", 2, quantizer=True),),
    "mjpeg": (Encoder("mjpeg", 2, quantizer=True),),
    "prores": (Encoder("prores_ks"),),
    **{
        name: (Encoder(name),)
        for name in ("ffv1", "huffyuv", "ffvhuff", "utvideo", "png", "qtrle", "rawvideo")
    },
}
# where the source's codec cannot be written or the container does not hold it
_INSTEAD = {
    "webm": "vp9",
    "avi": "mpeg4",
    **dict.fromkeys(("mpeg", "vob", "dvd", "svcd"), "mpeg2video"),
}
_FALLBACK = "h264"
# what containers hold of which FFmpeg says nothing when it is asked
_HELD = {
    "mpegts": ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"),
    # H.264 too, but without the times of most frames
    **dict.fromkeys(("mpeg", "vob", "dvd", "svcd"), ("mpeg1video", "mpeg2video")),
}
# bits a pixel that no content needs: a ceiling, for encoders that have no constant quality without one
_CEILING = 0.5
_QP2LAMBDA = 118  # FFmpeg's unit of `global_quality`
# these encoders refuse odd sizes of subsampled formats; the same without subsampling
_EVEN = ("libx264", "libx265")
_WHOLE = {
    f"yuv{j}{chroma}p{bits}": f"yuv444p{bits}"
    for j in ("", "j")
    for chroma in ("420", "422")
    for bits in ("", "10le", "12le")
}


def choose_encoder(codec: str, container: Any) -> tuple[Encoder, str]:
    """The best encoder for a codec in an open container, and the codec that it writes.

    Raises:
        ValueError: FFmpeg was built without any that would do.
    """
    av = pyav()
    rows = [
        (name, _ENCODERS.get(name, ())) for name in (codec, _INSTEAD.get(container.format.name, _FALLBACK))
    ]
    plain = [(name, _plain(av, name)) for name in (codec, container.default_video_codec)]
    for written, encoders in (*rows, *plain):
        for encoder in encoders:
            try:
                found = av.Codec(encoder.name, "w")
            except av.codec.codec.UnknownCodecError:
                continue
            # a name of a codec finds any encoder of it
            held = encoder.name in container.supported_codecs or written in _HELD.get(
                container.format.name, ()
            )
            if found.name == encoder.name and held:
                return encoder, written
    raise ValueError(f"this build of FFmpeg has no encoder for a file of the format {container.format.name}")


def _plain(av: Any, codec: str) -> tuple[Encoder, ...]:
    """FFmpeg's own encoder of a codec that has no row in the table, near the best of its quantizers."""
    try:
        return (Encoder(av.Codec(codec, "w").name, 2, quantizer=True),)
    except av.codec.codec.UnknownCodecError:
        return ()


def set_quality(
    encoder: Encoder, context: Any, crf: float | None, bitrate: int | None, pixel_rate: float
) -> dict[str, str]:
    """The options for a quality, or for so many bits a second; sets the bit rate of the context too.

    Raises:
        ValueError: `crf` for an encoder that has none.
    """
    if crf is not None and (encoder.quality is None or encoder.quantizer):
        raise ValueError(f"crf is for H.264, H.265, VP8, VP9 and AV1; this video is coded by {encoder.name}")
    if bitrate is not None:
        context.bit_rate = bitrate
        return {}
    if encoder.name in ("libvpx", "libopenh264"):
        context.bit_rate = int(_CEILING * pixel_rate)
    if encoder.quality is None:
        return {}
    if encoder.quantizer:
        return {"flags": "+qscale", "global_quality": str(round(_QP2LAMBDA * encoder.quality))}
    return {"crf": f"{encoder.quality if crf is None else crf:g}"}


def choose_format(encoder: str, wanted: str, size: tuple[int, int]) -> tuple[str, str | None]:
    """The source's pixel format where the encoder takes it; else the nearest one, and why."""
    av = pyav()
    if encoder in _EVEN and wanted in _WHOLE and (size[0] % 2 or (size[1] % 2 and "420" in wanted)):
        return _WHOLE[wanted], f"{encoder} takes {wanted} of even sizes only"
    # full range is a tag of its own; these names are deprecated
    plain = wanted.replace("yuvj", "yuv")
    formats = [format.name for format in av.Codec(encoder, "w").video_formats or ()]
    for name in (wanted,) if encoder == "mjpeg" else (plain, wanted):
        if not formats or name in formats:
            return name, None
    bits = depth(av.VideoFormat(wanted, 16, 16))
    # a deprecated or a packed one may be called nearest: planes of YUV or RGB only
    planar = [name for name in formats if name.startswith(("yuv4", "yuva", "gbr", "gray", "rgb", "bgr"))]
    alike = [name for name in planar if depth(av.VideoFormat(name, 16, 16)) >= bits]
    if not planar:
        raise ValueError(f"{encoder} takes none of the pixel formats that frames are made in")
    best = av.codec.codec.find_best_pix_fmt_of_list(alike or planar, wanted, True)[0]
    return best.name, f"{encoder} does not take {wanted}"
