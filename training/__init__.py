"""Recipes, data, losses and tasks: everything that needs a dataset or an optimizer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastllie.training.heap import keep_heap as keep_heap
    from fastllie.training.recipes.config import read_config as read_config
    from fastllie.training.recipes.overrides import described_fields as described_fields
    from fastllie.training.recipes.overrides import field_names as field_names
    from fastllie.training.recipes.overrides import merged as merged
    from fastllie.training.recipes.overrides import nested as nested
    from fastllie.training.recipes.overrides import value_of as value_of
    from fastllie.training.trainer import Interrupted as Interrupted

# public name -> where it lives; loaded on first use, because recipes cost no import of PyTorch
_WHERE = {
    "Interrupted": "trainer",
    "described_fields": "recipes.overrides",
    "field_names": "recipes.overrides",
    "keep_heap": "heap",
    "merged": "recipes.overrides",
    "nested": "recipes.overrides",
    "read_config": "recipes.config",
    "value_of": "recipes.overrides",
}

__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fastllie.training' has no attribute {name!r}")
    return getattr(import_module(f"fastllie.training.{_WHERE[name]}"), name)
