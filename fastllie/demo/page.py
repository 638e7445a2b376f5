"""A page in the browser: a photograph before and after, by every method (extra `demo`, Gradio)."""

import html
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

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

HOST, PORT = "127.0.0.1", 7860
MOST_UPLOADED = "1gb"  # where the server hangs up; what `checked` refuses below it gets a message
MOST_WAITING = 16  # requests; they are served one at a time, because a network uses all cores
THUMBNAIL = 360  # pixels, the long side of a sample to pick
KEPT = 24 * 3600  # seconds until an upload and its results are deleted; all are when the page ends
# held while a network runs
_work = threading.Lock()
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
    from gradio import SelectData

    choices = samples_of(samples)
    for path in choices:
        checked(path)
    thumbnails = [displayable(read(path), THUMBNAIL) for path in choices]

    def told(handler: Callable[..., Any]) -> Callable[..., Any]:
        """The handler with its errors shown as messages on the page."""

        @wraps(handler)
        def run(*inputs: Any) -> Any:
            with _messages(gr, inputs[0]):
                return handler(*inputs)

        return run

    @told
    def upload(path: str) -> Path:
        checked(Path(path))
        return Path(path)

    def pick(event: SelectData) -> Path:
        return choices[event.index]

    def weights_of(method: str, chosen: str | None = None) -> tuple[Any, str]:
        names = variants(method)
        dropdown = gr.Dropdown(choices=names, value=chosen or names[0], interactive=len(names) > 1)
        return dropdown, _about(method)

    def choose(event: SelectData) -> tuple[Any, ...]:
        if event.index == 0:
            # the photograph itself
            return (gr.skip(),) * 5
        method, variant = everything()[event.index - 1]
        return gr.Tabs(selected="one"), "one", method, *weights_of(method, variant)

    @told
    def show(path: Path, method: str, variant: str, strength: float) -> tuple[Any, str, Any]:
        with _work:
            result = brighten(path, method, variant, strength, folder)
        width, height = result.size
        facts = [path.name, f"{width} × {height}", duration(result.seconds)]
        status = " · ".join([f"<b>{html.escape(title(method, variant))}</b>", *map(html.escape, facts)])
        return (result.before, result.after), status, gr.DownloadButton(value=result.file, interactive=True)

    def show_all(path: Path, strength: float, open_tab: str) -> Iterator[Any]:
        if open_tab != "all":
            yield gr.skip()
            return
        shown = []
        with _messages(gr, path):
            tiles = compare(path, strength, folder)
            while True:
                with _work:
                    tile = next(tiles, None)
                if tile is None:
                    return
                shown.append(tile)
                yield shown

    first = "zerodce" if "zerodce" in methods() else methods()[0]
    # nothing may be loaded or told from outside: no analytics here, and no fonts of the web in the theme
    with gr.Blocks(title="fastllie", analytics_enabled=False, delete_cache=(3600, KEPT)) as blocks:
        photograph, open_tab = gr.State(choices[0]), gr.State("one")
        gr.HTML(TITLE.format(PUBLIC if public else LOCAL), elem_id="title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                file = gr.File(show_label=False, file_types=["image"], height=120, elem_id="upload")
                gallery = gr.Gallery(
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
            with gr.Column(scale=7, min_width=480), gr.Tabs(selected="one") as tabs:
                with gr.Tab("Before and after", id="one") as one:
                    slider = gr.ImageSlider(
                        show_label=False, max_height=720, buttons=["fullscreen"], elem_id="slider"
                    )
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
        settings = [photograph, method, weights, strength]
        quiet: dict[str, Any] = {"api_visibility": "private"}
        # one network at a time, and of many moves of the slider the last one
        heavy = {"concurrency_id": "network", "trigger_mode": "always_last", **quiet}
        one_result = {
            "fn": show,
            "inputs": settings,
            "outputs": [slider, status, download],
            "show_progress_on": slider,
            **heavy,
        }
        all_results = {
            "fn": show_all,
            "inputs": [photograph, strength, open_tab],
            "outputs": tiles,
            **heavy,
        }
        hidden = {"show_progress": "hidden", **quiet}
        uploaded = file.upload(upload, file, photograph, **quiet)
        # either way ready for the next one
        uploaded.success(lambda: (gr.Gallery(selected_index=None), None), None, [gallery, file], **hidden)
        uploaded.failure(lambda: None, None, file, **hidden)
        gallery.select(pick, None, photograph, **quiet)
        changed = method.input(weights_of, method, [weights, about], **hidden)
        changed.then(**one_result)
        chosen = tiles.select(choose, None, [tabs, open_tab, method, weights, about], **hidden)
        chosen.then(**one_result)
        gr.on([blocks.load, photograph.change, weights.input, strength.change], **one_result)
        one.select(lambda: "one", None, open_tab, **hidden)
        every.select(lambda: "all", None, open_tab, **hidden)
        gr.on([open_tab.change, photograph.change, strength.change], **all_results)
    blocks.queue(max_size=MOST_WAITING, default_concurrency_limit=1)
    return blocks


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


def serve(
    host: str = HOST,
    port: int = PORT,
    *,
    share: bool = False,
    samples: str | os.PathLike[str] | None = None,
    open_browser: bool = False,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM (which only the main thread gets); prints its address.

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
    port = _free(host, port)
    with _folder() as folder:
        with _stop() as stop:
            gr = gradio()
            blocks = page(folder, samples, public=share)
            try:
                blocks.launch(
                    server_name=f"[{host}]" if ":" in host else host,
                    server_port=port,
                    share=share,
                    inbrowser=open_browser,
                    quiet=True,
                    prevent_thread_lock=True,
                    show_error=True,
                    max_file_size=MOST_UPLOADED,
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
                    raise RuntimeError(
                        "Gradio's servers gave no public address; without share the page is local"
                    )
                print(f"the page is at {blocks.local_url} (Ctrl-C ends it)", flush=True)
                while not stop.wait(1):
                    pass
            finally:
                blocks.close(verbose=False)
        _finish()


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
    with tempfile.TemporaryDirectory(prefix="fastllie-demo-", ignore_cleanup_errors=True) as folder:
        # Gradio asks its own server whether it is there, and a proxy could not tell
        given = os.environ.get("no_proxy", os.environ.get("NO_PROXY"))
        local = ",".join(filter(None, (given, "localhost,127.0.0.1,::1")))
        with _environment(GRADIO_TEMP_DIR=folder, no_proxy=local):
            yield Path(folder)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _finish() -> None:
    """Wait until no network runs: native threads that compute would end the process with an abort."""
    if not _work.acquire(timeout=1):
        print("waiting for the photograph at work (Ctrl-C again does not)", flush=True)
        _work.acquire()
    _work.release()


@contextmanager
def _stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, where this is the main thread.

    As an exception, Ctrl-C while the server starts would end in whatever code runs at that moment.
    """
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals] if main else []
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=False):
            signal.signal(number, handler)
