"""Recipes that await their weights."""
