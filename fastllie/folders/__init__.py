"""Many files side by side: which is read, which written, and what became of each."""

from fastllie.folders.threads import enhance_folder
from fastllie.folders.work import FolderResult

__all__ = ["FolderResult", "enhance_folder"]
