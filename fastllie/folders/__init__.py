"""Many files side by side: which is read, which written, and what became of each."""

from fastllie.folders.jobs import Failure, suffix_of_result
from fastllie.folders.threads import enhance_folder
from fastllie.folders.work import FolderResult
from fastllie.images.reading import suffix_of_content

__all__ = ["Failure", "FolderResult", "enhance_folder", "suffix_of_content", "suffix_of_result"]
