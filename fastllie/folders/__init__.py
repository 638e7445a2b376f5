"""Many files side by side: which is read, which written, and what became of each."""

from fastllie.folders.work import FolderResult, enhance_folder

__all__ = ["FolderResult", "enhance_folder"]
