"""Data docs that open anywhere: Great Expectations' pages without the network, and one front page before them."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from pipeline.data.data_docs import Page

HERE = Path(__file__).parent
#: Great Expectations' pages load styles and scripts from content networks, and a logo from its maker's
#: bucket with the project's id in the address: unstyled without a network, and telemetry with one.
OUTSIDE = re.compile(
    r"<script\b.*?</script>|<style\b.*?</style>|<link\b[^>]*>|<img\b[^>]*>|<footer\b.*?</footer>"
    r'|\son[a-z]+="[^"]*"',
    re.DOTALL | re.IGNORECASE,
)
#: What a page may load: nothing. The rows that it shows were written by anybody.
POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""


def write_docs(site: Path, target: Path, page: Page) -> None:
    """Write the data docs of `site` to `target`, made to open from the file system, behind `index.html`.

    Great Expectations' own index is drawn by a script from a content network, so `page` replaces it.
    """
    style = (HERE / "datadocs.css").read_text(encoding="utf-8")
    links: dict[str, str] = {}
    for path in sorted(site.rglob("*.html")):
        relative = path.relative_to(site)
        if relative.name == "index.html":
            continue
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        (target / relative).write_text(offline(path.read_text(encoding="utf-8"), style), encoding="utf-8")
        links[relative.parts[2] if relative.parts[0] == "validations" else "suite"] = relative.as_posix()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((HERE / "datadocs.html").read_text(encoding="utf-8"))
    failed = [item for item in page.findings if not item.finding.passed]
    text = template.render(page=page, failed=failed, links=links, head=POLICY + f"<style>{style}</style>")
    (target / "index.html").write_text(text, encoding="utf-8")


def offline(html: str, style: str) -> str:
    """A Great Expectations page in `style`, without scripts or anything from outside."""
    html = OUTSIDE.sub("", html)
    return html.replace("</head>", f"{POLICY}<style>{style}</style>\n</head>", 1)
