"""Files that systems and tools leave in any folder: they are nobody's artifacts, and nobody's strays."""

from __future__ import annotations

_NAMES = frozenset({".DS_Store", ".gitkeep", ".gitignore", "Thumbs.db", "desktop.ini"})
_APPLE_DOUBLE = "._"
"""How the names begin of what macOS writes beside files where the file system has no room for its attributes."""


def is_litter(name: str) -> bool:
    """Whether a file of this name is of no concern: no duplicate, not without an owner, no sign that anything was
    logged.
    """
    return name in _NAMES or name.startswith(_APPLE_DOUBLE)
