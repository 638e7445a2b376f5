"""Weights on the Hugging Face Hub, fetched by address; safetensors alone."""

import importlib
import re
from pathlib import Path
from typing import Any

SCHEME = "hf://"
FILE = "model.safetensors"  # as the Hub calls it
_ADDRESS = re.compile(r"hf://([^/@]+/[^/@]+)(?:/([^@]+))?(?:@(.+))?")
# one look at the Hub a process: `enhance` finds its weights anew for every image
_fetched: dict[str, Path] = {}


def fetch(address: str) -> Path:
    """The file behind `hf://owner/name[/file][@revision]`, in huggingface_hub's own cache.

    Without a file it is `model.safetensors`, or the one safetensors file that is there. What a process has
    fetched it does not ask for again.

    Raises:
        ValueError: another form of address, another kind of file, or several to choose from.
        FileNotFoundError: no such repository, revision or file.
        ImportError: without the extra `hub`.
    """
    if address in _fetched and _fetched[address].is_file():
        return _fetched[address]
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(f"weights {address!r}: wanted hf://owner/name[/file][@revision]")
    name, file, revision = match.groups()
    if file and not file.endswith(".safetensors"):
        raise ValueError(f"weights {address!r}: from the Hub come files that end in .safetensors alone")
    library = library_of_the_hub()
    try:
        path = library.hf_hub_download(name, file or FILE, revision=revision)
    except library.errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(f"weights {address!r}: no such repository, or not for you") from error
    except library.errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"weights {address!r}: no such revision") from error
    except library.errors.EntryNotFoundError as error:
        # without a network the file may only be absent here
        if isinstance(error, library.errors.LocalEntryNotFoundError):
            raise
        held = [one for one in files_of(library, name, revision) if one.endswith(".safetensors")]
        if file or not held:
            known = f"; there are: {', '.join(held)}" if held else "; there are none in safetensors"
            raise FileNotFoundError(f"weights {address!r}: no such file{known}") from error
        if len(held) > 1:
            raise ValueError(f"weights {address!r}: name one of the files: {', '.join(held)}") from error
        path = library.hf_hub_download(name, held[0], revision=revision)
    _fetched[address] = Path(path)
    return _fetched[address]


def files_of(library: Any, name: str, revision: str | None) -> list[str]:
    return list(library.HfApi().list_repo_files(name, revision=revision))


def library_of_the_hub() -> Any:
    try:
        importlib.import_module("huggingface_hub.errors")
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError(
            f'the Hugging Face Hub needs an extra: pip install "fastllie[hub]" ({error})'
        ) from error
