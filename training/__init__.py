"""Recipes, data, losses and tasks: everything that needs a dataset or an optimizer."""
