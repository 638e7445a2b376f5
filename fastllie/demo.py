"""A page in the browser: a photograph before and after, by every method (extra `demo`, Gradio)."""

import html
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastllie.api import Enhancer
from fastllie.deep import DeepImage, read_image
from fastllie.files import SUFFIXES, opening, save_image
from fastllie.methods import info, list_methods

HOST, PORT = "127.0.0.1", 7860
SAMPLES = Path(__file__).resolve().parent / "samples"
MOST_SAMPLES = 12
MOST_PIXELS = 64 * 10**6  # of a photograph, which is decoded, enhanced and encoded in memory
MOST_BYTES = "200mb"  # of a file
MOST_WAITING = 16  # requests; they are served one at a time, because a network uses all cores
KEPT = 24 * 3600  # seconds until an upload and its results are deleted; all are when the page ends
SHOWN = 1600  # pixels, the long side of what a browser shows; the download has the full size
COMPARED = 1024  # pixels, the long side of what all methods are run on
SHOWN_QUALITY = 90
# Pillow's name of a format -> the suffix of the result; the others become PNG
KINDS = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "PPM": ".ppm",
}
# what a photograph, or the lack of memory for it, may raise
ERRORS = (TypeError, ValueError, OSError, MemoryError, RuntimeError)


@dataclass(frozen=True)
class Result:
    """One photograph, enhanced.

    Attributes:
        before: The photograph as a browser shows it, at most `SHOWN` pixels long.
        after: The result in the same size.
        file: The result in full size, of the photograph's kind where `save_image` knows it, else PNG.
        size: Width and height of `file`.
        seconds: What the enhancement took, without reading and writing.
    """

    before: Path
    after: Path
    file: Path
    size: tuple[int, int]
    seconds: float


def methods() -> list[str]:
    """The methods that can be chosen: those that have weights in the package."""
    return [name for name in list_methods() if info(name).weights]


def variants(method: str) -> list[str]:
    """The names of a method's weights, the default first."""
    return [variant.name for variant in info(method).weights]


def samples_of(folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """The photographs to pick from: those in a folder, twelve at most, or the package's own.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it holds no images.
    """
    place = SAMPLES if folder is None else Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"no such folder of samples: {str(place)!r}")
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"the folder {str(place)!r} holds no images ({', '.join(SUFFIXES)})")
    return found[:MOST_SAMPLES]


def checked(path: Path) -> str:
    """The suffix that the result of a photograph gets.

    Raises:
        ValueError: no image, a damaged one, or one of more pixels than the page takes.
    """
    try:
        with opening(path) as file:
            (width, height), kind = file.size, KINDS.get(file.format or "", ".png")
    except ValueError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise ValueError(_too_large(path, "far more than any photograph")) from error
        raise
    if width * height > MOST_PIXELS:
        raise ValueError(_too_large(path, f"{width} x {height}"))
    return kind


def _too_large(path: Path, size: str) -> str:
    return (
        f"{path.name} has too many pixels for this page: {size}; it takes {MOST_PIXELS // 10**6} million."
        " `fastllie enhance` takes larger ones"
    )


def brighten(path: Path, method: str, variant: str, strength: float, folder: Path) -> Result:
    """Enhance a photograph in full size, and write the result and what is shown of it below `folder`.

    Raises:
        ValueError: weights that the package does not have for the method (a path is none), and as `checked`.
        TypeError, ValueError, OSError, MemoryError, RuntimeError: as `fastllie.enhance`.
    """
    if variant not in variants(method):
        raise ValueError(f"{method} has no weights {variant!r}; known: {', '.join(variants(method))}")
    suffix = checked(path)
    enhancer = Enhancer(method, weights=variant, strength=strength)
    before = read_image(path)
    begin = time.perf_counter()
    if isinstance(before, DeepImage):
        after: Image.Image | DeepImage = before.with_colours(enhancer(before.colours))
    else:
        after = enhancer(before)
    seconds = time.perf_counter() - begin
    place = Path(tempfile.mkdtemp(dir=folder))
    file = place / f"{path.stem}-{_label(method, variant)}{suffix}"
    if isinstance(after, DeepImage):
        after.save(file)
    else:
        save_image(after, file)
    shown = _displayable(before, SHOWN), _displayable(after, SHOWN)
    return Result(
        before=_written(shown[0], place / "before"),
        after=_written(shown[1], place / "after"),
        file=file,
        size=_size(after),
        seconds=seconds,
    )


def compare(path: Path, strength: float, folder: Path) -> Iterator[tuple[Path, str]]:
    """The photograph, then the result of every method with all of its weights, one after another.

    All are computed on a photograph reduced to `COMPARED` pixels on the long side, of 8 bits a channel.

    Yields:
        An image file below `folder`, and what it is, with the time that it took.

    Raises:
        As `brighten`.
    """
    checked(path)
    small = _displayable(read_image(path), COMPARED)
    place = Path(tempfile.mkdtemp(dir=folder))
    width, height = small.size
    yield _written(small, place / "photograph"), f"photograph, {width} × {height}"
    for method in methods():
        for variant in variants(method):
            enhancer = Enhancer(method, weights=variant, strength=strength)
            begin = time.perf_counter()
            after = enhancer(small)
            seconds = time.perf_counter() - begin
            name = info(method).title + (f" {variant}" if len(variants(method)) > 1 else "")
            yield _written(after, place / _label(method, variant)), f"{name}, {_told(seconds)}"


def _label(method: str, variant: str) -> str:
    return method if variant == variants(method)[0] else f"{method}.{variant}"


def _told(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _size(image: Image.Image | DeepImage) -> tuple[int, int]:
    if isinstance(image, DeepImage):
        height, width = image.values.shape[:2]
        return width, height
    return image.size


def _displayable(image: Image.Image | DeepImage, side: int) -> Image.Image:
    """An image of any mode as RGB or RGBA of 8 bits, at most `side` pixels long, with its colour profile."""
    image = image.reduced() if isinstance(image, DeepImage) else image
    # the profile of a grey image or of CMYK would be wrong for RGB
    profile = image.info.get("icc_profile") if image.mode in ("P", "RGB", "RGBA") else None
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, np.float64) / (1 if image.mode == "F" else 65535)
        image = Image.fromarray((values.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    shown = image.convert("RGBA" if image.has_transparency_data else "RGB")
    scale = side / max(shown.size)
    if scale < 1:
        size = [max(1, round(length * scale)) for length in shown.size]
        shown = shown.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=2.0)
    shown.info = {"icc_profile": profile} if profile else {}
    return shown


def _written(image: Image.Image, path: Path) -> Path:
    target = path.with_name(path.name + (".png" if image.mode == "RGBA" else ".jpg"))
    save_image(image, target, quality=SHOWN_QUALITY)
    return target


CSS = """
.gradio-container { max-width: 1320px !important; margin: 0 auto; padding-top: 20px !important; }
#title h1 { font-size: 30px; font-weight: 700; letter-spacing: -0.5px; margin: 0; }
#title p { color: var(--body-text-color-subdued); margin: 2px 0 0; }
#about { font-size: 13px; color: var(--body-text-color-subdued); padding: 0 2px; }
#status { font-size: 14px; color: var(--body-text-color-subdued); align-self: center; padding: 0 2px; }
#status b { color: var(--body-text-color); font-weight: 600; }
#samples .grid-wrap { max-height: none; padding: 0; }
#samples .thumbnail-lg { aspect-ratio: 3 / 2; }
"""
# photographs of the dark are seen best on a dark page, whatever the system prefers
JS = "() => { document.body.classList.add('dark'); }"
TITLE = "<h1>fastllie</h1><p>Brighten dark photographs. They stay on the machine that serves this page.</p>"


def gradio() -> Any:
    """The module of Gradio.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f'the page needs Gradio: pip install "fastllie[demo]" ({error})') from error
    return gradio


def page(folder: Path, samples: str | os.PathLike[str] | None = None) -> Any:
    """Build the page, a `gradio.Blocks` that is not launched.

    Args:
        folder: Where the results are written, an existing one.
        samples: A folder of photographs to pick from; None is the package's.

    Raises:
        ImportError: Gradio is not installed.
        FileNotFoundError, ValueError: as `samples_of`, and a sample that cannot be read.
    """
    gr = gradio()
    choices = samples_of(samples)
    thumbnails = [_displayable(read_image(path), 360) for path in choices if checked(path)]

    def told(handler: Callable[..., Any]) -> Callable[..., Any]:
        """The handler with its errors shown as messages on the page."""

        @wraps(handler)
        def run(*inputs: Any) -> Any:
            with _messages(gr, inputs[0]):
                return handler(*inputs)

        return run

    @told
    def upload(path: str) -> tuple[Path, Any]:
        checked(Path(path))
        return Path(path), gr.Gallery(selected_index=None)

    def pick(event: gr.SelectData) -> tuple[Path, None]:
        return choices[event.index], None

    @told
    def weights_of(method: str) -> tuple[Any, str]:
        names = variants(method)
        return gr.Dropdown(choices=names, value=names[0], interactive=len(names) > 1), _about(method)

    @told
    def show(path: Path, method: str, variant: str, strength: float) -> tuple[Any, str, Any]:
        result = brighten(path, method, variant, strength, folder)
        status = (
            f"<b>{html.escape(info(method).title)}</b> · {result.size[0]} × {result.size[1]} ·"
            f" {_told(result.seconds)}"
        )
        return (result.before, result.after), status, gr.DownloadButton(value=result.file, interactive=True)

    def show_all(path: Path, strength: float, open_tab: str) -> Iterator[Any]:
        if open_tab != "all":
            yield gr.skip()
            return
        tiles = []
        with _messages(gr, path):
            for tile in compare(path, strength, folder):
                tiles.append(tile)
                yield tiles

    first = methods()[0] if "zerodce" not in methods() else "zerodce"
    # nothing may be loaded or told from outside: no analytics here, and no fonts of the web in the theme
    with gr.Blocks(title="fastllie", analytics_enabled=False, delete_cache=(3600, KEPT)) as blocks:
        photograph, open_tab = gr.State(choices[0]), gr.State("one")
        gr.HTML(TITLE, elem_id="title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                file = gr.File(label="Your photograph", file_types=["image"], height=130, elem_id="upload")
                gallery = gr.Gallery(
                    thumbnails,
                    label="or a sample",
                    columns=2,
                    height="auto",
                    object_fit="cover",
                    allow_preview=False,
                    interactive=False,
                    selected_index=0,
                    buttons=[],
                    elem_id="samples",
                )
                method = gr.Dropdown(
                    [(info(name).title, name) for name in methods()],
                    value=first,
                    label="Method",
                    elem_id="method",
                )
                weights = gr.Dropdown(
                    variants(first),
                    value=variants(first)[0],
                    label="Weights",
                    interactive=len(variants(first)) > 1,
                    elem_id="weights",
                )
                strength = gr.Slider(0, 1, value=1, step=0.05, label="Strength", elem_id="strength")
                about = gr.HTML(_about(first), elem_id="about")
            with gr.Column(scale=7, min_width=480), gr.Tabs():
                with gr.Tab("Before and after", id="one") as one:
                    slider = gr.ImageSlider(
                        show_label=False, max_height=720, buttons=["fullscreen"], elem_id="slider"
                    )
                    with gr.Row(equal_height=True):
                        status = gr.HTML("", elem_id="status")
                        download = gr.DownloadButton(
                            "Download in full size",
                            variant="primary",
                            interactive=False,
                            scale=0,
                            min_width=220,
                            elem_id="download",
                        )
                with gr.Tab("All methods side by side", id="all") as every:
                    tiles = gr.Gallery(
                        show_label=False,
                        columns=2,
                        height="auto",
                        object_fit="contain",
                        interactive=False,
                        buttons=["fullscreen"],
                        elem_id="tiles",
                    )
        settings = [photograph, method, weights, strength]
        one_result = {"fn": show, "inputs": settings, "outputs": [slider, status, download]}
        all_results = {"fn": show_all, "inputs": [photograph, strength, open_tab], "outputs": tiles}
        quiet: dict[str, Any] = {"api_visibility": "private"}
        file.upload(upload, file, [photograph, gallery], **quiet)
        gallery.select(pick, None, [photograph, file], **quiet)
        changed = method.input(weights_of, method, [weights, about], show_progress="hidden", **quiet)
        changed.then(trigger_mode="always_last", **one_result, **quiet)
        gr.on(
            [blocks.load, photograph.change, weights.input, strength.release],
            trigger_mode="always_last",
            **one_result,
            **quiet,
        )
        one.select(lambda: "one", None, open_tab, **quiet)
        every.select(lambda: "all", None, open_tab, **quiet)
        gr.on(
            [open_tab.change, photograph.change, strength.release],
            trigger_mode="always_last",
            **all_results,
            **quiet,
        )
    blocks.queue(max_size=MOST_WAITING, default_concurrency_limit=1)
    return blocks


@contextmanager
def _messages(gr: Any, given: Any) -> Iterator[None]:
    """Turn what a photograph may raise into a message on the page, which names the file without its folder."""
    try:
        yield
    except ERRORS as error:
        text = str(error) or type(error).__name__
        if isinstance(given, (str, Path)):
            text = text.replace(repr(str(given))[1:-1], Path(given).name)
        raise gr.Error(html.escape(text, quote=False), print_exception=False) from error


def _about(method: str) -> str:
    row = info(method)
    return html.escape(f"{row.title}: {row.paper}. {row.parameters:,} parameters.")


def serve(
    host: str = HOST,
    port: int = PORT,
    *,
    share: bool = False,
    samples: str | os.PathLike[str] | None = None,
    open_browser: bool = False,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; prints its address.

    Uploads and results lie in a temporary folder, which is deleted at the end. Nothing is sent to any other
    machine but with `share`.

    Args:
        host: The address to listen at; "0.0.0.0" lets other machines in.
        port: 0 is any that is free.
        share: Ask Gradio's servers for a public address, through which all photographs then go.
        samples: A folder of photographs to pick from; None is the package's.
        open_browser: Open the page in the browser of this machine.

    Raises:
        ImportError: Gradio is not installed.
        FileNotFoundError, ValueError: as `page`.
        OSError: the port is in use, or the host is no address of this machine.
        RuntimeError: there is no public address to be had.
    """
    gr = gradio()
    port = _free(host, port)
    with _folder() as folder:
        blocks = page(folder, samples)
        try:
            blocks.launch(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=port,
                share=share,
                inbrowser=open_browser,
                quiet=True,
                prevent_thread_lock=True,
                show_error=True,
                max_file_size=MOST_BYTES,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                theme=_theme(gr),
                css=CSS,
                js=JS,
            )
            if share and not blocks.share_url:
                raise RuntimeError("Gradio's servers gave no public address; without share the page is local")
            print(f"the page is at {blocks.local_url} (Ctrl-C ends it)", flush=True)
            _wait()
        finally:
            blocks.close(verbose=False)


def _theme(gr: Any) -> Any:
    return gr.themes.Base(
        primary_hue=gr.themes.colors.amber,
        neutral_hue=gr.themes.colors.zinc,
        font=["system-ui", "-apple-system", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def _free(host: str, port: int) -> int:
    """The port, or any free one for 0.

    Raises:
        ValueError: no port.
        OSError: it is in use, or the host is not here.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must lie in 0..65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":
                # a page that has just ended leaves its port waiting; elsewhere this would take a used one
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise OSError(
            f"cannot listen at port {port} of {host!r}: {error.strerror or error}; 0 is any free port"
        ) from error


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder for all of Gradio's files and ours, deleted at the end."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="fastllie-demo-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def _wait() -> None:
    """Sleep until Ctrl-C, or SIGTERM where this is the main thread."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        return
