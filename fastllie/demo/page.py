"""A page in the browser: a photograph before and after, by every method (extra `demo`, Gradio)."""

import html
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastllie.defaults import METHOD
from fastllie.demo.showcase import (
    brighten,
    checked,
    compare,
    displayable,
    duration,
    everything,
    methods,
    samples_of,
    title,
    variants,
)
from fastllie.images.reading import read
from fastllie.methods import info

MOST_WAITING = 16  # requests; they are served one at a time, because a network uses all cores
THUMBNAIL = 360  # pixels, the long side of a sample to pick
KEPT = 24 * 3600  # seconds until an upload and its results are deleted; all are when the page ends
# held while a network runs
work = threading.Lock()
# what a photograph, or the lack of memory for it, may raise
ERRORS = (TypeError, ValueError, OSError, MemoryError, RuntimeError)
# what Gradio gives a gallery is room for one that scrolls
CSS = """
.gradio-container { max-width: 1360px !important; margin: 0 auto; padding-top: 16px !important; }
#title h1 { font-size: 28px; font-weight: 700; letter-spacing: -0.5px; margin: 0; }
#title p { color: var(--body-text-color-subdued); margin: 2px 0 0; }
#upload .wrap { min-height: 0; font-size: var(--text-md); line-height: 1.5; }
#samples, #tiles { border-width: 0 !important; background: none; border-radius: 0; }
#samples .grid-wrap, #tiles .grid-wrap { min-height: 0; max-height: none; padding: 0; }
#samples .thumbnail-lg { aspect-ratio: 3 / 2; }
#tiles .thumbnail-lg { aspect-ratio: auto; height: auto; }
#tiles .thumbnail-lg img { height: auto; }
#tiles .caption-label { left: 0; right: auto; bottom: 0; font-size: 13px; }
#about { font-size: 13px; color: var(--body-text-color-subdued); padding: 0 2px; }
#status { font-size: 14px; color: var(--body-text-color-subdued); align-self: center; padding: 0 2px; }
#status b { color: var(--body-text-color); font-weight: 600; }
"""
# photographs of the dark are seen best on a dark page, whatever the system prefers
JS = "() => { document.body.classList.add('dark'); }"
TITLE = "<h1>fastllie</h1><p>Brighten dark photographs. {}</p>"
LOCAL = "They stay on the machine that serves this page."
PUBLIC = "This page is public: they go through Gradio's servers."


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


def page(folder: Path, samples: str | os.PathLike[str] | None = None, *, public: bool = False) -> Any:
    """Build the page, a `gradio.Blocks` that is not launched.

    Args:
        folder: Where the results are written, an existing one.
        samples: A folder of photographs to pick from; None is the package's.
        public: What the page says about where photographs go.

    Raises:
        ImportError: Gradio is not installed.
        FileNotFoundError, ValueError: as `samples_of`, and a sample that cannot be read.
    """
    gr = gradio()
    choices = samples_of(samples)
    for path in choices:
        checked(path)
    thumbnails = [displayable(read(path), THUMBNAIL) for path in choices]
    # nothing may be loaded or reported from outside: no analytics here, and no fonts of the web in the theme
    with gr.Blocks(title="fastllie", analytics_enabled=False, delete_cache=(3600, KEPT)) as blocks:
        photograph, open_tab = gr.State(choices[0]), gr.State("one")
        gr.HTML(TITLE.format(PUBLIC if public else LOCAL), elem_id="title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                controls = _controls(gr, thumbnails)
            with gr.Column(scale=7, min_width=480), gr.Tabs(selected="one") as tabs:
                shown = _results(gr)
        parts = SimpleNamespace(
            photograph=photograph, open_tab=open_tab, tabs=tabs, **vars(controls), **vars(shown)
        )
        _connect(gr, blocks, parts, Handlers(gr, folder, choices))
    blocks.queue(max_size=MOST_WAITING, default_concurrency_limit=1)
    return blocks


class Handlers:
    """What the page does when something on it is chosen.

    Attributes:
        choices: The photographs to pick from.
    """

    def __init__(self, gr: Any, folder: Path, choices: list[Path]):
        self.choices = choices
        self._gr = gr
        self._folder = folder

    def with_messages(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The handler with its errors shown as messages on the page."""

        @wraps(handler)
        def run(*inputs: Any) -> Any:
            with _messages(self._gr, inputs[0]):
                return handler(*inputs)

        return run

    def upload(self, path: str) -> Path:
        checked(Path(path))
        return Path(path)

    def weights_of(self, method: str, chosen: str | None = None) -> tuple[Any, str]:
        names = variants(method)
        dropdown = self._gr.Dropdown(choices=names, value=chosen or names[0], interactive=len(names) > 1)
        return dropdown, _about(method)

    def selections(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """What picks a sample, and what chooses a tile; Gradio finds their event by its type."""
        from gradio import SelectData

        def pick(event: SelectData) -> Path:
            return self.choices[event.index]

        def choose(event: SelectData) -> tuple[Any, ...]:
            if event.index == 0:
                # the photograph itself
                return (self._gr.skip(),) * 5
            method, variant = everything()[event.index - 1]
            return self._gr.Tabs(selected="one"), "one", method, *self.weights_of(method, variant)

        return pick, choose

    def show(self, path: Path, method: str, variant: str, strength: float) -> tuple[Any, str, Any]:
        with work:
            result = brighten(path, method, variant, strength, self._folder)
        width, height = result.size
        facts = [path.name, f"{width} × {height}", duration(result.seconds)]
        status = " · ".join([f"<b>{html.escape(title(method, variant))}</b>", *map(html.escape, facts)])
        download = self._gr.DownloadButton(value=result.file, interactive=True)
        return (result.before, result.after), status, download

    def show_all(self, path: Path, strength: float, open_tab: str) -> Iterator[Any]:
        if open_tab != "all":
            yield self._gr.skip()
            return
        shown = []
        with _messages(self._gr, path):
            tiles = compare(path, strength, self._folder)
            while True:
                with work:
                    tile = next(tiles, None)
                if tile is None:
                    return
                shown.append(tile)
                yield shown


def _controls(gr: Any, thumbnails: list[Any]) -> SimpleNamespace:
    """The left column, in the context that is open."""
    first = METHOD if METHOD in methods() else methods()[0]
    return SimpleNamespace(
        file=gr.File(show_label=False, file_types=["image"], height=120, elem_id="upload"),
        gallery=gr.Gallery(
            thumbnails,
            show_label=False,
            columns=2,
            height="auto",
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            selected_index=0,
            buttons=[],
            elem_id="samples",
        ),
        method=gr.Dropdown(
            [(info(name).title, name) for name in methods()], value=first, label="Method", elem_id="method"
        ),
        weights=gr.Dropdown(
            variants(first),
            value=variants(first)[0],
            label="Weights",
            interactive=len(variants(first)) > 1,
            elem_id="weights",
        ),
        strength=gr.Slider(0, 1, value=1, step=0.05, label="Strength", elem_id="strength"),
        about=gr.HTML(_about(first), elem_id="about"),
    )


def _results(gr: Any) -> SimpleNamespace:
    """The two tabs, in the context that is open."""
    with gr.Tab("Before and after", id="one") as one:
        slider = gr.ImageSlider(show_label=False, max_height=720, buttons=["fullscreen"], elem_id="slider")
        with gr.Row():
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
            columns=3,
            height="auto",
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="tiles",
        )
    return SimpleNamespace(one=one, every=every, slider=slider, status=status, download=download, tiles=tiles)


def _connect(gr: Any, blocks: Any, parts: SimpleNamespace, handlers: Handlers) -> None:
    """Say what happens when something is chosen."""
    quiet: dict[str, Any] = {"api_visibility": "private"}
    # one network at a time, and of many moves of the slider the last one
    heavy = {"concurrency_id": "network", "trigger_mode": "always_last", **quiet}
    one_result = {
        "fn": handlers.with_messages(handlers.show),
        "inputs": [parts.photograph, parts.method, parts.weights, parts.strength],
        "outputs": [parts.slider, parts.status, parts.download],
        "show_progress_on": parts.slider,
        **heavy,
    }
    all_results = {
        "fn": handlers.show_all,
        "inputs": [parts.photograph, parts.strength, parts.open_tab],
        "outputs": parts.tiles,
        **heavy,
    }
    hidden = {"show_progress": "hidden", **quiet}
    pick, choose = handlers.selections()
    uploaded = parts.file.upload(
        handlers.with_messages(handlers.upload), parts.file, parts.photograph, **quiet
    )
    # either way ready for the next one
    uploaded.success(
        lambda: (gr.Gallery(selected_index=None), None), None, [parts.gallery, parts.file], **hidden
    )
    uploaded.failure(lambda: None, None, parts.file, **hidden)
    parts.gallery.select(pick, None, parts.photograph, **quiet)
    changed = parts.method.input(handlers.weights_of, parts.method, [parts.weights, parts.about], **hidden)
    changed.then(**one_result)
    chosen = [parts.tabs, parts.open_tab, parts.method, parts.weights, parts.about]
    parts.tiles.select(choose, None, chosen, **hidden).then(**one_result)
    again = [blocks.load, parts.photograph.change, parts.weights.input, parts.strength.change]
    gr.on(again, **one_result)
    parts.one.select(lambda: "one", None, parts.open_tab, **hidden)
    parts.every.select(lambda: "all", None, parts.open_tab, **hidden)
    gr.on([parts.open_tab.change, parts.photograph.change, parts.strength.change], **all_results)


@contextmanager
def _messages(gr: Any, given: Any) -> Iterator[None]:
    """Turn what a photograph may raise into a message on the page; it names the file without its folder."""
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
