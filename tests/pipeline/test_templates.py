"""Templates of pages."""

from __future__ import annotations

from pathlib import Path

from pipeline.templates import templates_in


def test_template_is_compiled_once(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("{{ title }}", encoding="utf-8")
    page = templates_in(tmp_path).get_template("page.html")
    assert page.render(title="<b>") == "&lt;b&gt;"
    assert templates_in(tmp_path).get_template("page.html") is page
