"""Many files side by side: which is read, which written, and what became of each."""

from fastllie.folders.jobs import Failure
from fastllie.folders.threads import enhance_folder
from fastllie.folders.work import FolderResult

__all__ = ["Failure", "FolderResult", "enhance_folder"]
