"""What `make docs` adds to MkDocs: links that lead out of docs/ work on the site too.

Pages link to `../results/...` and to source files by their place in the repository, so that its readers
get to them. A site has only what lies in docs/. So every file that a page links to goes to the site
under its path in the repository, pages and reports with what they link to in turn, and the links are turned
towards it. They could lead to a page of the repository instead if it had an address; and a site that holds
what it speaks of opens from disk.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OPTIONAL = ("results/",)
"""Pages of the nav that begin so are left out of it while they are not there."""
ENTRANCES = ("index.html", "report/index.html", "README.md")
"""What a link to a directory leads to, whichever there is first."""
SHOWN = {".csv", ".gif", ".html", ".ipynb", ".json", ".md", ".mp4", ".pdf", ".png", ".svg", ".txt"}
"""Kinds of files that keep their name; of others browsers show the text only if it ends in .txt."""
_LINK = re.compile(
    r"(?P<code>^(?P<fence>```+|~~~+).*?^(?P=fence)|(?P<ticks>`+).*?(?P=ticks))"  # is no link
    r"|(?P<before>\]\(|(?:src|href)=\")(?P<to>[^)\s\"]+)",
    re.DOTALL | re.MULTILINE,
)
_UNBUILT = re.compile(r"^\*`make docs` fills this page in.*\n\n", re.MULTILINE)
"""What a page says to who reads it unbuilt."""
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?=<code>)")
_origins: dict[str, str] = {}
"""Path in the repository of what was added to the site, by its path there."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leaves results that are not there yet out of the nav."""
    config.nav = _there(config.nav)
    return config


def _there(nav: Any) -> Any:
    """A nav, or an entry of one, without results that are not there; ``None`` where nothing is left."""
    if isinstance(nav, list):
        return [entry for entry in map(_there, nav) if entry] or None
    if isinstance(nav, dict):
        return {title: kept for title, entry in nav.items() if (kept := _there(entry))} or None
    return (
        None
        if nav.startswith(OPTIONAL) and not any((ROOT / d / nav).is_file() for d in ("", "docs"))
        else nav
    )


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what the nav and the pages link to, and what that links to."""
    _origins.clear()

    def add(target: str) -> None:
        uri = site_path(target)
        if files.get_file_from_path(uri) is None:
            _origins[uri] = target
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / target)))
            if uri.endswith(".md"):
                waiting.append(uri)
            elif uri.endswith("index.html"):  # a report with its figures beside it
                for beside in sorted(p for p in (ROOT / target).parent.rglob("*") if p.is_file()):
                    add(beside.relative_to(ROOT).as_posix())

    waiting = [file.src_uri for file in files.documentation_pages()]
    for entry in re.findall(r"'(results/[^']+)'", repr(config.nav)):
        add(entry)
    while waiting:
        page = waiting.pop()
        for target in linked((ROOT / origin(page)).read_text(encoding="utf-8"), origin(page)):
            add(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns the links of a page that lead out of docs/ towards what was added."""
    return turned(_UNBUILT.sub("", markdown), origin(page.file.src_uri))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Takes Sphinx's roles, as in :func:`build`, out of docstrings: what they name stands as code."""
    return _ROLE.sub("", html)


def origin(uri: str) -> str:
    """Path in the repository of a file of the site."""
    return _origins.get(uri, f"docs/{uri}")


def site_path(target: str) -> str:
    """Path among the site's files of a file of the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return target if posixpath.splitext(target)[1] in SHOWN else f"{target}.txt"


def linked(text: str, page: str) -> list[str]:
    """Files of the repository outside of docs/ that a page links to, by their paths there.

    Args:
        text: the page's Markdown.
        page: its path in the repository.
    """
    found: list[str] = []
    _each_link(text, page, lambda target, anchor: found.append(target))
    return [target for target in found if not target.startswith("docs/")]


def turned(text: str, page: str) -> str:
    """The Markdown of a page with links for the site, see :func:`linked`."""
    place = posixpath.dirname(site_path(page))

    def towards(target: str, anchor: str) -> str:
        return posixpath.relpath(site_path(target), place or ".") + anchor

    return _each_link(text, page, towards)


def _each_link(text: str, page: str, change: Callable[[str, str], str | None]) -> str:
    """Changes every relative link of a page to a file that there is; others are left for MkDocs to find."""

    def changed(match: re.Match[str]) -> str:
        path, mark, anchor = (match["to"] or "").partition("#")
        if match["code"] or not path or re.match(r"[a-z]+:|/", path):
            return match[0]
        target = _file(posixpath.normpath(posixpath.join(posixpath.dirname(page), path)))
        if target is None:
            return match[0]
        return f"{match['before']}{change(target, mark + anchor)}"

    return _LINK.sub(changed, text)


def _file(target: str) -> str | None:
    """A file of the repository that a path names, or the one that stands for a directory."""
    if target.startswith(".."):
        return None
    if (ROOT / target).is_dir():
        target = next((t for e in ENTRANCES if (ROOT / (t := f"{target}/{e}")).is_file()), target)
    return target if (ROOT / target).is_file() else None
