"""Which files hold video, and which container is written for a suffix: FFmpeg is asked."""

import glob
import io
import mimetypes
import os
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image

from fastllie.images.formats import READ
from fastllie.images.formats import SUFFIXES as IMAGES
from fastllie.video.reading import moving, pyav

# the usual ones, whatever else takes their suffix
USUAL = {".m4v": "mp4", ".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}
# by name containers of video, by use without any
_SOUND = (".isma", ".m4a", ".m4b", ".ogg", ".ra", ".wma")
# AVFMT_NOFILE and AVFMT_NEEDNUMBER: devices, network streams, and numbered pictures
_NO_FILE = 0x1 | 0x2
# demuxers that see video in pictures and in text
_STILLS = ("image2", "tty", "gif", "apng", "jpegxl_anim", "webp", "ico", "fits")
_STILL_BRANDS = ("avif", "heic", "heix", "mif1")
_LOOKED_AT = 5  # files of one suffix in folders
# the same muxer under other names
MP4 = ("mp4", "mov", "3gp", "3g2", "f4v", "ipod", "ismv", "psp")


@lru_cache(maxsize=1)
def containers() -> dict[str, str]:
    """The suffixes of files that FFmpeg writes and reads as video, and its name for the container of each."""
    av = pyav()
    still = {suffix.lower() for suffix in Image.registered_extensions()} | set(IMAGES)
    found: dict[str, tuple[bool, int, str]] = {}
    for name in sorted(av.formats_available):
        try:
            format = av.format.ContainerFormat(name, "w")
            with av.open(io.BytesIO(), "w", format=name) as container:
                video, sound = container.default_video_codec, container.default_audio_codec
        except (ValueError, av.FFmpegError):
            # it is read only, or no file
            continue
        # pictures in sound files are PNG; raw video does not say how large it is
        if video in ("none", "png", "rawvideo") or format.flags & _NO_FILE:
            continue
        for extension in format.extensions:
            suffix = f".{extension.strip().lower()}"
            kind = mimetypes.guess_type(f"x{suffix}")[0] or ""
            if suffix in _SOUND or kind.startswith("image/"):
                continue
            if suffix in still and not kind.startswith("video/"):
                continue
            # of several containers the one that takes sound too, and the plain one before its variants
            rank = (sound == "none", len(name), name)
            found[suffix] = min(found.get(suffix, rank), rank)
    return {**{suffix: name for suffix, (*_, name) in sorted(found.items())}, **USUAL}


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether FFmpeg finds moving pictures in a file, whatever it is called."""
    av = pyav()
    try:
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            name = container.format.name
            if name in _STILLS or name.endswith("_pipe"):
                return False
            if container.metadata.get("major_brand", "").strip() in _STILL_BRANDS:
                return False
            return any(moving(stream) for stream in container.streams.video)
    except (av.FFmpegError, OSError):
        return False


def suffix_of_result(source: str | os.PathLike[str]) -> str:
    """The suffix of what is written for a file: its own, or .mkv, which takes any stream, for a video in what
    FFmpeg reads and does not write."""
    suffix = _suffix(os.fspath(source))
    if suffix in USUAL or suffix in READ:
        return suffix
    try:
        return ".mkv" if is_video(source) and suffix not in containers() else suffix
    except ImportError:
        return suffix


def suffixes_among(inputs: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str] = "") -> set[str]:
    """The suffixes of videos among files, globs and folders, of an output that is one, and the usual ones.

    FFmpeg is asked for its suffixes where there are others than those of images, and looks into files: into a
    few of a folder, because TypeScript ends in .ts too, and into each that is given by name.

    Without PyAV these are the usual ones, so that whoever enhances such a file says what is missing.
    """
    by_name: list[str] = []
    in_folders: dict[str, list[str]] = defaultdict(list)
    for given in (os.fspath(path) for path in inputs):
        for place, _, names in os.walk(given):
            for name in names:
                some = in_folders[_suffix(name)]
                if len(some) < _LOOKED_AT:
                    some.append(os.path.join(place, name))
        if not os.path.exists(given):
            by_name += glob.glob(given, recursive=True)
        elif not os.path.isdir(given):
            by_name.append(given)
    known = {*USUAL, *IMAGES, ""}
    try:
        found = {_suffix(name) for name in by_name if _suffix(name) not in known and is_video(name)}
        for suffix, some in in_folders.items():
            if suffix not in known and suffix in containers() and any(map(is_video, some)):
                found.add(suffix)
        if _suffix(os.fspath(output)) not in known and _suffix(os.fspath(output)) in containers():
            found.add(_suffix(os.fspath(output)))
    except ImportError:
        found = set()
    return {*USUAL, *found}


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
