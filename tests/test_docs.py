"""The site of `make docs` builds strictly and without a network, and what its pages lead to is there."""

from __future__ import annotations

import functools
import html.parser
import importlib.util
import os
import re
import subprocess
import sys
import types
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import mtenvs
from benchmarks.performance import MARKS, PAGE, goals_table, with_goals

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
# whatever would ask for something finds nobody there
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
WITH_THE_REPOSITORY = (
    "https://arxiv.org/",
    "https://docs.ray.io",
    "https://github.com/openai/requests-for-research",
)
"""What the text of our own pages links to, elsewhere; whoever adds one looks whether it is there."""


def build(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Builds a site as `make docs` does."""
    pytest.importorskip("material", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(out)]
    environment = {**os.environ, **OFFLINE, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stderr
    return out


class Page(html.parser.HTMLParser):
    """What a built page links to, what it loads, and the names that can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.names |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif "src" in values:
            self.loads.append(values["src"])
        elif tag == "link" and values.get("rel") != "canonical":
            self.loads.append(values["href"])


def nav(entries: object = CONFIG["nav"]) -> Iterator[str]:
    """Every page of the nav."""
    if isinstance(entries, str):
        yield entries
    for entry in (
        entries.values() if isinstance(entries, dict) else entries if isinstance(entries, list) else ()
    ):
        yield from nav(entry)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_page_is_in_the_nav(path: Path) -> None:
    assert list(nav()).count(path.name) == 1


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    parsed = functools.cache(Page)
    pages = sorted(p for p in site.rglob("*.html") if "report" not in p.parts and p.name != "404.html")
    assert len(pages) > len(PAGES)
    for page in pages:
        for link in [*parsed(page).links, *parsed(page).loads]:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            assert not url.path.startswith("/"), f"{page.name} links to {link}, which is nothing on a disk"
            target = (page.parent / urllib.parse.unquote(url.path)).resolve() if url.path else page
            assert target.is_file(), f"{page.relative_to(site)} links to {link}, which is not there"
            if url.fragment and target.suffix == ".html":
                assert urllib.parse.unquote(url.fragment) in parsed(target).names, (
                    f"{page.relative_to(site)} links to {link}, and nothing there is called so"
                )


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for url in Page(page).loads:
            assert not urllib.parse.urlsplit(url).netloc, f"{page.relative_to(site)} loads {url}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", text), style.name


def test_results_are_on_the_site(site: Path) -> None:
    assert (site / "results/benchmarks/curves.png").read_bytes() == (
        ROOT / "results/benchmarks/curves.png"
    ).read_bytes()
    assert 'src="results/benchmarks/warp_curves.png"' in (site / "gpu.html").read_text(encoding="utf-8")
    assert (site / "harness/measures.py.txt").read_text() == (ROOT / "harness/measures.py").read_text()


def test_docstrings_are_on_the_page_of_the_api(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    page = Page(site / "api.html")
    for name in mtenvs.__all__:
        # what a module has the name of is shown from where it is defined
        shown = page.names & {f"mtenvs.{name}", f"mtenvs.registry.{name}"}
        assert shown, f"put '::: mtenvs.{name}' into docs/api.md"
    assert "Y_θ = min(T_θ, B), any shape" in text  # of a function
    assert "Name in ids:" in text  # of a field
    assert not re.search(r":(?:func|class|meth|mod|data|attr):", text)


BROKEN = {
    "[no page](none.md)": "link 'none.md', but the target is not found",
    "[no file](../results/none.png)": "link '../results/none.png', but the target is not found",
    "[no file of code](../harness/none.py)": "link '../harness/none.py', but the target is not found",
    "[a directory](../harness)": "unrecognized relative link '../harness'",
    "[no anchor](../results/reliability.md#none)": "does not contain an anchor '#none'",
    "[from the root](/tasks.md)": "absolute link '/tasks.md'",
}
"""Links that lead nowhere, and what is said of them."""


def test_broken_links_stop_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    good = "[a result](../results/reliability.md#violent-actions-on-sampled-bodies) `[code](none.md)`\n"
    (docs / "index.md").write_text(f"# Page\n\n{good}\n{' '.join(BROKEN)}\n", encoding="utf-8")
    same = {name: CONFIG[name] for name in ("strict", "validation", "not_in_nav", "use_directory_urls")}
    config = {
        **same,
        "site_name": "broken",
        "docs_dir": str(docs),
        "theme": {"name": "mkdocs"},
        "nav": ["index.md"],
    }
    config |= {"plugins": [], "hooks": [str(DOCS / "hooks.py")]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    for link, complaint in BROKEN.items():
        assert complaint in done.stderr, (link, done.stderr)
    assert re.search(r"Aborted with \d+ warnings in strict mode", done.stdout + done.stderr)
    # results that the real front page links to come along, and link to pages that this site lacks
    assert done.stderr.count("Doc file 'index.md'") == len(BROKEN)


@pytest.fixture(scope="module")
def hooks() -> types.ModuleType:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_results_that_are_not_there_are_left_out_of_the_nav(hooks: types.ModuleType) -> None:
    later, now, typo = {"A": "results/none.md"}, {"B": "results/reliability.md"}, {"C": "none.md"}
    assert hooks._there(["index.md", later, {"D": [later, now]}, {"E": [later]}, typo]) == [
        "index.md",
        {"D": [now]},
        typo,  # which MkDocs complains of
    ]


@pytest.mark.parametrize(
    ("page", "text", "turned"),
    [
        ("docs/a.md", "[x](../results/reliability.md#b)", "[x](results/reliability.md#b)"),
        ("docs/a.md", "![x](../results/benchmarks/curves.png)", "![x](results/benchmarks/curves.png)"),
        ("docs/a.md", "[x](../harness/plan.py)", "[x](harness/plan.py.txt)"),
        ("docs/a.md", "[x](../results/quickstart)", "[x](results/quickstart/report/index.html)"),
        ("docs/a.md", "[x](tasks.md#y) [z](#w)", "[x](tasks.md#y) [z](#w)"),
        ("results/a.md", "[x](../docs/tasks.md#y)", "[x](../tasks.md#y)"),
        ("results/a.md", "[x](benchmarks/)", "[x](benchmarks/README.md)"),
        ("results/a.md", '<img src="benchmarks/curves.png">', '<img src="benchmarks/curves.png">'),
        ("docs/a.md", "`[x](../results/reliability.md)`", None),
        ("docs/a.md", "```\n[x](../results/reliability.md)\n```", None),
        ("docs/a.md", "[x](https://arxiv.org/) [y](../../etc/passwd)", None),
    ],
)
def test_links_are_turned_towards_the_site(
    page: str, text: str, turned: str | None, hooks: types.ModuleType
) -> None:
    assert hooks.turned(text, page) == (text if turned is None else turned)


def test_links_to_elsewhere_are_few_and_well_formed() -> None:
    found = set()
    for path in (*PAGES, ROOT / "README.md"):
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        found |= set(re.findall(r"https?://[^\s)>\"`]*", text))
    assert found
    for url in found:
        parts = urllib.parse.urlsplit(url)
        assert parts.scheme == "https", url
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), url
        assert url.startswith(WITH_THE_REPOSITORY), f"look whether {url} is there, and list it"


def test_the_table_of_goals_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_goals(text), "run `make export`"
    rows = [line for line in goals_table().splitlines() if line.endswith(".json` |")]
    assert len(rows) > 10
    assert any("**not met**" in row for row in rows)
    with pytest.raises(ValueError, match="belongs between '<!-- goals -->' and '<!-- /goals -->', once"):
        with_goals("".join(MARKS[::-1]))


# words of a row of docs/coverage.md, and what docs/protocol.md says that it holds
QUOTED = {
    r"10% of transfer runs at Y = B.* \| 10 \| `log_ratio` covers": "of a task holds the truth in .63",
    r"8 tasks: 10% of transfer runs at Y = B.* \| `suite_mean` covers": "eight such tasks in .69",
    r"speed-up 3, the standard preset's checkpoints \|": "a true 3 holds it in .47",
    r"speed-up 3, the standard preset's checkpoints, interpolated \|": "interpolated, in .945",
    r"speed-up 3, curved rises, the standard preset's checkpoints, interpolated \|": "in .949 where runs",
    r"folds correlated by 0.1, symmetric \| 8 \| `sign_flip` covers": "covers .88 if folds are correlated",
    r"folds correlated by 0.3, symmetric \| 8 \| `sign_flip` covers": "and .70 by 0.3",
}


@pytest.mark.parametrize("row", QUOTED)
def test_the_protocol_quotes_the_coverage_study(row: str) -> None:
    study, protocol = ((DOCS / name).read_text(encoding="utf-8") for name in ("coverage.md", "protocol.md"))
    (actual,) = re.findall(rf"^\| {row}.*? \| \.95 \| (\.\d+) ± ", study, re.MULTILINE)
    assert QUOTED[row] in " ".join(protocol.split())
    assert {actual, f"{float(actual):.2f}"[1:]} & {*re.findall(r"\.\d+", QUOTED[row])}, (
        f"the study has {actual}"
    )
