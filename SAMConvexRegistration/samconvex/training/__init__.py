"""Recipes that train the networks of this package; nothing outside the command line imports it.

``training.command`` is what ``samconvex train`` calls; ``training.sam`` is the recipe of the anatomical embedding.
"""
