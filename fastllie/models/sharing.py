"""A network's way to the Hugging Face Hub and back.

The one place where a network knows of files: its functions import `fastllie.checkpoint` when they are called.
"""

from typing import Any, TypeVar

_Network = TypeVar("_Network", bound="Shared")


class Shared:
    """What every network has for the Hub; needs the extra `hub`."""

    @classmethod
    def from_pretrained(
        cls: type[_Network],
        name: str,
        *,
        file: str | None = None,
        revision: str | None = None,
        **options: Any,
    ) -> _Network:
        """The network with the weights of a repository, as `load(method, "hf://...")` does.

        Args:
            name: "owner/name" on the Hub.
            file: The safetensors file; None is model.safetensors, or the one that is there.
            revision: A branch, a tag or a commit.
            **options: The method's own, e.g. `scale=12` for "zerodce++".

        Returns:
            The network, on the CPU in float32, in eval mode.

        Raises:
            TypeError: a class that is the network of no method; an option that the method does not have.
            ValueError: weights that do not fit; several files to choose from.
            FileNotFoundError: no such repository, revision or file.
            ImportError: without the extra.
        """
        from fastllie.checkpoint import pretrained

        return pretrained.from_repository(cls, name, file, revision, options)

    def push_to_hub(
        self,
        name: str,
        *,
        file: str = "model.safetensors",
        private: bool | None = None,
        revision: str | None = None,
        message: str | None = None,
    ) -> str:
        """Write the weights into a repository on the Hub, which is made where there is none.

        They are written in fastllie's layout, with what is needed to make this network again; options such as
        `scale` are the caller's at each loading. A README.md is added where there is none. Whoever is logged
        in (`hf auth login`, or HF_TOKEN) writes.

        Args:
            name: "owner/name" on the Hub.
            file: What the file is called there; ends in .safetensors.
            private: Whether a repository that is made is for its owner alone; None: the owner's default.
            revision: The branch to write to; None is main.
            message: Of the commit.

        Returns:
            Where the commit is to be seen.

        Raises:
            TypeError: the network of no method.
            ValueError: its layers are not as built, so that the file would make another network.
            ImportError: without the extra.
        """
        from fastllie.checkpoint import pretrained

        return pretrained.push(self, name, file, private, revision, message)
