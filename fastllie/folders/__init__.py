"""Many files side by side: which is read, which written, and what became of each."""

from fastllie.folders.jobs import Failure
from fastllie.folders.work import FolderResult, enhance_folder

__all__ = ["Failure", "FolderResult", "enhance_folder"]
