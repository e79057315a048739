"""What mkdocs is told for the site: the pages that stand at the top of the repository, and patterns in the nav."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

CHECKOUT = Path(__file__).resolve().parent.parent
TOP = {"README.md": "index.md", **{name: name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")}}
"""Pages at the top of the repository, and what they are called on the site."""
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]*)((?:#[^)\s]*)?\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages in the place of the patterns in the nav."""
    pages = {path.relative_to(CHECKOUT / "docs").as_posix() for path in (CHECKOUT / "docs").rglob("*.md")}
    named = set(_leaves(config.nav))
    config.nav = _filled(config.nav, sorted(pages - named))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the top."""
    for name, page in TOP.items():
        text = (CHECKOUT / name).read_text("utf-8")
        files.append(File.generated(config, page, content=_linked(text, name, config)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: MkDocsConfig, **_: Any) -> str:
    """Links out of docs/ lead to the pages of the top, or to the repository."""
    if page.file.generated_by:
        return markdown
    return _linked(markdown, f"docs/{page.file.src_uri}", config)


def _linked(text: str, name: str, config: MkDocsConfig) -> str:
    """The text of a file of the repository, its links as the site has them; what is not there stays, to be told."""
    here = posixpath.dirname(name)
    page = TOP.get(name) or name.removeprefix("docs/")

    def link(found: re.Match[str]) -> str:
        opening, target, rest = found.groups()
        path = posixpath.normpath(posixpath.join(here, target))
        if not target or not (CHECKOUT / path).exists():
            return found[0]
        if path in TOP or (path.startswith("docs/") and not path.endswith(".py") and (CHECKOUT / path).is_file()):
            on_site = TOP.get(path) or path.removeprefix("docs/")
            return f"{opening}{posixpath.relpath(on_site, posixpath.dirname(page) or '.')}{rest}"
        return f"{opening}{config.repo_url}/blob/main/{path}{rest}"

    return _LINK.sub(link, text)


def _leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from _leaves(item)


def _filled(nav: Any, free: list[str]) -> Any:
    """The nav with pages for patterns; a section without any goes."""
    if isinstance(nav, dict):
        found = {title: _filled(item, free) for title, item in nav.items()}
        return {title: item for title, item in found.items() if item}
    if not isinstance(nav, list):
        return nav
    items: list[Any] = []
    for item in nav:
        if isinstance(item, str) and "*" in item:
            items += [page for page in free if fnmatchcase(page, item) and page.count("/") == item.count("/")]
        elif filled := _filled(item, free):
            items.append(filled)
    return items
