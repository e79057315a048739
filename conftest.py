"""This checkout's wiring: the plugin comes from the installed package, the fixers from `fixers/` (see
pyproject.toml).
"""
