"""`serve`: the page at an address of this machine, until it is stopped."""

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastllie.defaults import HOST, PORT
from fastllie.demo.page import CSS, JS, gradio, page, work

MOST_UPLOADED = "1gb"  # where the server hangs up; what `checked` refuses below it gets a message


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
    if not work.acquire(timeout=1):
        print("waiting for the photograph at work (Ctrl-C again does not)", flush=True)
        work.acquire()
    work.release()


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
