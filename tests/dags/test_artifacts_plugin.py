"""The pages behind the links: the real Airflow application serves them to signed-in users, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from pipeline.store.artifacts import Artifact, Store

pytestmark = pytest.mark.airflow

DOCS = {
    "docs/index.html": "<p>모든 규칙</p>",
    "docs/validations/train.html": "<script>fetch('/api/v2/dags')</script>",
    "train.parquet": "rows",
    "validation.json": "{}",
}


@pytest.fixture(scope="module")
def api(database: Path) -> Iterator[TestClient]:
    """Yield Airflow's API server with the plugin, without a signed-in user."""
    from airflow.api_fastapi.app import create_app

    with TestClient(create_app(apps="core"), follow_redirects=False) as client:
        yield client


@pytest.fixture
def reader(api: TestClient, airflow_home: Path) -> Iterator[TestClient]:
    """Yield the same server, signed in by cookie like a browser."""
    passwords = json.loads((airflow_home / "simple_auth_manager_passwords.json.generated").read_text())
    (name, password), *_ = passwords.items()
    answer = api.post("/auth/token", json={"username": name, "password": password})
    api.cookies.set("_token", answer.json()["access_token"])
    yield api
    api.cookies.clear()


def publish(store: Store, kind: str, files: dict[str, str]) -> Artifact:
    with store.draft() as draft:
        for name, content in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(content, encoding="utf-8")
        return store.publish(draft, kind, "nsmc", "00ff", run="test-run", inputs={}, fields={}, figures={})


@pytest.mark.parametrize("kind", ["validate", "rejected-data"])
def test_data_docs_are_served(reader: TestClient, store: Store, kind: str) -> None:
    answer = reader.get(f"/saebyeok/{publish(store, kind, DOCS).ref}/docs/index.html")
    assert (answer.status_code, answer.text) == (200, "<p>모든 규칙</p>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("kind", ["decide", "release"])
def test_a_report_is_served(reader: TestClient, store: Store, kind: str) -> None:
    decided = publish(store, kind, {"report.html": "<h1>report</h1>", "decision.json": "{}"})
    assert reader.get(f"/saebyeok/{decided.ref}/report.html").text == "<h1>report</h1>"
    assert reader.get(f"/saebyeok/{decided.ref}/decision.json").status_code == 404


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, f"{name}.tsv") for kind in ("validate", "rejected-data") for name in ("quarantine", "overlap")],
)
def test_files_that_the_pages_link_to_are_served(reader: TestClient, store: Store, kind: str, name: str) -> None:
    files = {name: "내용", "validation.json": "{}", "mistakes.json": "[]", f"x{name}": ""}
    ref = publish(store, kind, files).ref
    assert reader.get(f"/saebyeok/{ref}/{name}").text == "내용"
    for other in files.keys() - {name}:
        assert reader.get(f"/saebyeok/{ref}/{other}").status_code == 404


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("overlap.tsv", "text/tab-separated-values; charset=utf-8"),
        ("docs/style.css", "text/css; charset=utf-8"),
        ("docs/rules.json", "application/json"),
        ("docs/logo.png", "image/png"),
        ("docs/LOGO.SVG", "image/svg+xml"),
        ("docs/page.v2.html", "text/html; charset=utf-8"),
        ("docs/font.woff2", "application/octet-stream"),
        ("docs/html", "application/octet-stream"),
    ],
)
def test_file_is_served_as_what_it_is(reader: TestClient, store: Store, name: str, media_type: str) -> None:
    answer = reader.get(f"/saebyeok/{publish(store, 'validate', {name: 'content'}).ref}/{name}")
    assert (answer.status_code, answer.text) == (200, "content")
    assert answer.headers["content-type"] == media_type
    # The browser revalidates it each time, and no proxy stores it.
    assert answer.headers["cache-control"] == "private, no-cache"


def test_store_that_is_away_is_no_missing_page(
    reader: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = publish(store, "validate", DOCS).ref
    assert reader.get("/saebyeok/validate/nsmc/00ff/none/docs/index.html").json()["detail"] == (
        "Page not found. Its artifact may have been deleted."
    )
    (Path(store.uri).parent / "file").write_text("no directory")
    monkeypatch.setenv("SAEBYEOK_STORE", str(Path(store.uri).parent / "file"))
    answer = reader.get(f"/saebyeok/{ref}/docs/index.html")
    assert answer.status_code == 503, answer.text


def test_page_with_script_cannot_act_for_reader(reader: TestClient, store: Store) -> None:
    answer = reader.get(f"/saebyeok/{publish(store, 'validate', DOCS).ref}/docs/validations/train.html")
    policy = {part.split()[0]: part.split()[1:] for part in answer.headers["content-security-policy"].split("; ")}
    assert policy == {
        "sandbox": ["allow-popups", "allow-downloads"],
        "default-src": ["'none'"],
        "style-src": ["'unsafe-inline'"],
        "img-src": ["data:"],
    }
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "train.parquet",
        "validation.json",
        "manifest.json",
        "docs",
        "docs/",
        "docs/none.html",
        "docs/../train.parquet",
        "docs/%2e%2e/train.parquet",
        "docs/..%2ftrain.parquet",
        "docs/..%2f..%2f..%2f..%2f..%2fsecret.html",
        "docs/%2fetc%2fpasswd",
        "docs//etc/passwd",
        "docs/index.html%00.png",
        "docs/index.html%0a",
    ],
)
def test_no_path_leads_to_anything_else(reader: TestClient, store: Store, path: str) -> None:
    made = publish(store, "validate", DOCS)
    (Path(store.uri) / "secret.html").write_text("secret", encoding="utf-8")
    (made.path / "docs" / "unlisted.html").write_text("unlisted", encoding="utf-8")
    for below in (f"/saebyeok/{made.ref}/{path}", f"/saebyeok/{made.ref}/docs/unlisted.html"):
        assert reader.get(below).status_code == 404


@pytest.mark.parametrize(
    "ref",
    ["release/nsmc/00ff/{attempt}", "validate/../validate/nsmc", "validate/nsmc/00ff/%2e%2e", "validate/nsmc/..%2f/x"],
)
def test_no_ref_leads_to_anything_else(reader: TestClient, store: Store, ref: str) -> None:
    published = {kind: publish(store, kind, DOCS) for kind in ("release", "validate")}
    attempt = published["release"].ref.rsplit("/", 1)[1]
    assert reader.get(f"/saebyeok/{ref.format(attempt=attempt)}/docs/index.html").status_code == 404


def test_a_file_that_was_changed_is_not_served(reader: TestClient, store: Store) -> None:
    made = publish(store, "validate", DOCS)
    (made.path / "docs" / "index.html").write_text("<p>other</p>", encoding="utf-8")
    assert reader.get(f"/saebyeok/{made.ref}/docs/index.html").status_code == 404


def test_nobody_reads_without_logging_in(api: TestClient, store: Store) -> None:
    url = f"/saebyeok/{publish(store, 'validate', DOCS).ref}/docs/index.html"
    assert api.get(url, headers={"accept": "application/json"}).status_code == 401
    browser = api.get(url, headers={"accept": "text/html,*/*"})
    assert browser.status_code == 307
    assert browser.headers["location"].startswith("/auth/login?next=")


def test_nothing_can_be_written(reader: TestClient, store: Store) -> None:
    url = f"/saebyeok/{publish(store, 'validate', DOCS).ref}/docs/index.html"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert reader.request(method, url).status_code == 405
