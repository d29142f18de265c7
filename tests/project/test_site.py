"""The site of the documentation: its pages, its links, and its build without a warning or anything from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config_file import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES, ROOT / "pipeline" / "models" / "mini" / "README.md"]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
#: A tag that loads something from an address with a host: any but a link to follow.
FROM_ELSEWHERE = re.compile(r"<(?!a\b)\w[^>]*\b(?:src|href)=[^>]*//[^>]*>")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def broken(page: Path) -> Iterator[str]:
    """Yield the links of a page that lead nowhere in the checkout."""
    for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def test_every_link_leads_somewhere() -> None:
    found = {str(page.relative_to(ROOT)): list(broken(page)) for page in DOCUMENTS}
    assert len(found) > 50
    assert {page: links for page, links in found.items() if links} == {}


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title, here\n[a](gone.md) [b](#a-title-here) [c](#gone) [d](https://example.com)\n", "utf-8")
    assert list(broken(page)) == ["gone.md", "#gone"]


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    pages = [str(page.relative_to(DOCS)) for page in PAGES]
    # The index of the decisions lists the records.
    assert sorted(named) == [page for page in pages if not re.match(r"decisions/\d", page)]


def test_every_decision_is_in_the_index() -> None:
    index = (DOCS / "decisions" / "index.md").read_text(encoding="utf-8")
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    titles = [record.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for record in records]
    lines = [f"- [{title}]({record.name})" for title, record in zip(titles, records, strict=True)]
    assert [line for line in index.splitlines() if line.startswith("- ")] == lines


@pytest.mark.parametrize(
    ("tag", "loads"),
    [
        ('<script src="https://cdn.example/a.js">', True),
        ('<link rel="stylesheet" href=//cdn.example/a.css>', True),
        ('<img alt="" src="../a.png">', False),
        ('<a href="https://example.com">', False),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(tag: str, loads: bool) -> None:
    assert bool(FROM_ELSEWHERE.findall(f"<p>text</p>{tag}<p>//</p>")) is loads


def test_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="needs the extra `docs`")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [str(Path(sys.executable).parent / "zensical"), "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / ".saebyeok" / "site"
    assert not list(site.rglob("*.py"))
    for page in PAGES:
        html = (site / page.relative_to(DOCS)).with_suffix(".html").read_text(encoding="utf-8")
        assert [tag for tag in FROM_ELSEWHERE.findall(html) if 'rel="canonical"' not in tag] == [], page
