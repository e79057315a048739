"""The production model as programs load it."""
