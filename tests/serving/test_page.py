"""The page at `/` in a real browser, with a real service."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import httpx
import pytest

from pipeline.config_file import ROOT
from pipeline.job import open_store
from pipeline.store.deployments import DeploymentLog
from serving.api.pages import PAGE
from tests.support import http_server
from tests.support.running_service import Service, eventually, service_settings, serving
from tests.support.tiny_releases import SENTENCES, TinyModel

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

pytestmark = [pytest.mark.server, pytest.mark.browser]

TEXT = SENTENCES[0]
#: Timeout in milliseconds, longer than the page's pauses.
SOON = 20_000
#: Contrast of every text with its background by WCAG's formula, and the required minimum.
CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => parse(color).slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return (parse(color)[3] ?? 1) > 0 || !node.parentElement ? color : behind(node.parentElement);
  };
  const texts = [...document.querySelectorAll("main *")].filter((node) => node.checkVisibility() &&
    [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim()));
  return texts.map((node) => {
    const pair = [getComputedStyle(node).color, behind(node)].map(light).sort((a, b) => b - a);
    return [node.textContent.slice(0, 40), (pair[0] + 0.05) / (pair[1] + 0.05)];
  });
}"""


@dataclass
class Opened:
    """A page with its requests and console messages."""

    page: Page
    asked: list[str]
    said: list[str]

    def answer(self, panel: str) -> str:
        """Wait for the panel's answer and return it."""
        region = self.page.locator(f"#{panel} .answer")
        region.locator(".result").wait_for(timeout=SOON)
        return region.inner_text()

    @property
    def batch(self) -> Locator:
        """The card for many texts."""
        return self.page.locator("#batch")

    def run_batch(self) -> str:
        """Answer all rows and return the card's status."""
        self.batch.get_by_role("button", name=re.compile("Start|Continue")).click()
        self.batch.locator(".stop").wait_for(state="hidden", timeout=SOON)
        return self.batch.get_by_role("status").inner_text()

    def download(self) -> list[dict[str, str]]:
        """Download the answers and return the rows."""
        with self.page.expect_download() as found:
            self.batch.get_by_role("button", name="Download").click()
        written = found.value.path().read_bytes()
        assert written.startswith(b"\xef\xbb\xbf"), "Excel reads it as UTF-8"
        return list(csv.DictReader(io.StringIO(written.decode("utf-8-sig"), newline="")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed, so the page is not opened in a browser")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(service_settings(tmp_path_factory.mktemp("page")))
    try:
        service.wait_live()
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="module")
def waited(browser: Browser, running: Service, classifier: TinyModel, sentence_encoder: TinyModel) -> str:
    """Return the page's text before the first deployment; afterwards it has updated itself, with two live recipes."""
    page = browser.new_page()
    page.goto(running.settings.service_url)
    page.get_by_text("no release is deployed yet").wait_for(timeout=SOON)
    said = page.locator("main").inner_text()
    store = open_store(running.settings)
    releases = {
        "nsmc": classifier.publish(store, "nsmc", key="a" * 16),
        "klue-sts": sentence_encoder.publish(store, "klue-sts", key="b" * 16, sample=False),
    }
    refs = {recipe: release.ref for recipe, release in releases.items()}
    DeploymentLog(store).append(refs, after=0, run="test", reason="It is the first.")
    eventually("both workers serve it", lambda: [w.deployment for w in running.client.releases().workers] == [1, 1])
    page.get_by_label("Korean text").wait_for(timeout=SOON)
    page.close()
    return said


@pytest.fixture
def opened(browser: Browser, running: Service, waited: str) -> Iterator[Opened]:
    """The page of the service with two live recipes."""
    page = browser.new_page()
    found = Opened(page, [], [])
    page.on("request", lambda request: found.asked.append(request.url))
    page.on("console", lambda message: found.said.append(message.text))
    page.on("pageerror", lambda error: found.said.append(str(error)))
    page.goto(running.settings.service_url)
    page.get_by_label("Korean text").wait_for(timeout=SOON)
    yield found
    page.close()


def test_page_reports_a_missing_deployment(waited: str) -> None:
    assert "This page updates automatically." in waited
    assert "Classify" not in waited


def test_it_answers_as_one_types(opened: Opened, running: Service) -> None:
    opened.page.get_by_label("Korean text").press_sequentially(TEXT, delay=5)
    said = opened.answer("texts")
    [wanted] = running.client.classify([TEXT]).results
    assert said.startswith(wanted.label)
    assert f"{wanted.score:.1%} sure" in said
    for label, share in wanted.probabilities.items():
        assert re.search(rf"{label}\s+{share:.1%}", said)
    assert "nsmc-" + "a" * 16 in said
    assert "synthetic sample" in said
    assert "The text was cut off" not in said
    asked = [url for url in opened.asked if url.endswith("/classify")]
    assert len(asked) < len(TEXT), "it was debounced"
    status = opened.page.locator("#texts [role=status]")
    eventually("a screen reader is told", lambda: status.text_content() == f"{wanted.label}, {wanted.score:.1%} sure")
    opened.page.get_by_label("Korean text").fill("  ")
    opened.page.locator("#texts .answer").get_by_text("appears here as you type").wait_for()


def test_it_compares_two_sentences(opened: Opened, running: Service) -> None:
    opened.page.get_by_label("First sentence").fill(SENTENCES[4])
    opened.page.get_by_label("Second sentence").fill(SENTENCES[5])
    said = opened.answer("pairs")
    [wanted] = running.client.similarity([SENTENCES[4:6]]).results
    assert said.startswith("similar" if wanted.similar else "not similar")
    assert f"{round(wanted.score, 2):g} of 5" in said
    assert "similar from 3" in said
    assert "synthetic sample" not in said


def test_page_calls_only_the_service_without_errors(opened: Opened, running: Service) -> None:
    opened.page.get_by_role("button", name=re.compile("^정말 재미있게")).click()
    opened.answer("texts")
    url = running.settings.service_url
    loaded = {item.removeprefix(url) for item in opened.asked}
    assert loaded == {
        "/",
        "/releases",
        "/classify",
        *(f"/page/{n.name}" for n in PAGE.iterdir() if n.suffix != ".html"),
    }
    assert opened.said == []
    headers = httpx.get(url).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]


def test_a_request_that_is_overtaken_is_aborted(opened: Opened, running: Service) -> None:
    held: list[Route] = []
    failed: list[str] = []
    opened.page.on("requestfailed", lambda request: failed.append(request.post_data or ""))
    # The first request is sent, but gets no response.
    opened.page.route("**/classify", lambda route: held.append(route), times=1)
    field = opened.page.get_by_label("Korean text")
    with opened.page.expect_request("**/classify"):
        field.fill(SENTENCES[0])
    field.fill(SENTENCES[3])
    said = opened.answer("texts")
    assert [json.loads(body)["texts"] for body in failed] == [[SENTENCES[0]]], "it was aborted"
    [wanted] = running.client.classify([SENTENCES[3]]).results
    assert f"{wanted.score:.1%} sure" in said


def test_page_reports_truncated_and_refused_texts(opened: Opened) -> None:
    field = opened.page.get_by_label("Korean text")
    field.fill("영화 " * 400)
    assert "The text was cut off: the model reads at most 32 tokens" in opened.answer("texts")
    field.fill("가" * 10_001)
    problem = opened.page.locator("#texts .problem")
    problem.wait_for(timeout=SOON)
    assert "at most 10000 per text" in problem.inner_text()
    field.fill("가")
    opened.answer("texts")


def test_page_retries_a_busy_service_after_its_delay(opened: Opened) -> None:
    error = {"error": {"type": "overloaded", "message": "too many requests", "index": None}}
    opened.page.route(
        "**/classify",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}, json=error),
        times=1,
    )
    opened.page.get_by_label("Korean text").fill(TEXT)
    opened.page.get_by_text("too many requests. Trying again in 1 s.").wait_for(timeout=SOON)
    opened.answer("texts")


@pytest.mark.parametrize("guarded", [r"/classify$", r"/(classify|releases)$"])
def test_page_asks_for_a_required_key(opened: Opened, guarded: str) -> None:
    refused = {"error": {"type": "unauthorized", "message": "a key is needed", "index": None}}

    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer s3cret":
            route.continue_()
        else:
            route.fulfill(status=401, json=refused)

    opened.page.route(re.compile(guarded), guard)
    opened.page.get_by_label("Korean text").fill(TEXT)
    opened.page.get_by_text("The service requires an API key.").wait_for(timeout=SOON)
    key = opened.page.get_by_label("API key")
    key.fill("wrong")
    key.press("Enter")
    opened.page.get_by_text("The service does not accept this API key.").wait_for(timeout=SOON)
    key.fill("s3cret")
    key.press("Enter")
    opened.answer("texts")
    key.wait_for(state="hidden", timeout=SOON)
    assert opened.page.locator("#state").is_hidden()
    opened.page.get_by_text("Call the service with").first.click()
    assert "s3cret" not in opened.page.locator("main").inner_text()
    assert opened.page.locator("#texts").get_by_text("Bearer $API_KEY").is_visible()


def test_page_shows_deployed_releases(opened: Opened) -> None:
    said = opened.page.get_by_role("region", name="Deployed releases").inner_text()
    for part in ("Deployment 1", "It is the first.", "nsmc-" + "a" * 16, "klue-sts-" + "b" * 16, "0.5000", "32 tokens"):
        assert part in said
    assert said.count("sample data") == 1


def test_the_code_that_it_shows_runs(opened: Opened, running: Service) -> None:
    text = 'It\'s "$HOME" \\ `ls`\n정말 😀'
    opened.page.get_by_label("Korean text").fill(text)
    opened.answer("texts")
    opened.page.get_by_text("Call the service with").first.click()
    code = [block.inner_text() for block in opened.page.locator("#texts pre").all()]
    curl = subprocess.run(["bash", "-c", code[0]], capture_output=True, check=True)
    python = subprocess.run([sys.executable, "-c", code[1]], cwd=ROOT, capture_output=True, text=True, check=True)
    [wanted] = running.client.classify([text]).results
    [answer] = json.loads(curl.stdout)["results"]
    assert answer["score"] == pytest.approx(wanted.score, abs=1e-6)
    assert f"label='{wanted.label}'" in python.stdout


def test_the_keyboard_reaches_all_of_it(opened: Opened) -> None:
    page, reached = opened.page, []
    page.locator("body").click(position={"x": 1, "y": 1})
    for _ in range(24):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or reached[-1] == "BODY", f"focus cannot be seen on {reached[-1]}"
    order = [name for name in reached if name in ("text", "left", "right", "SUMMARY", "lines", "file")]
    assert order == ["text", "SUMMARY", "left", "right", "SUMMARY", "lines", "file"]
    unnamed = "[...document.querySelectorAll('input, textarea, select')].filter((field) => !field.labels.length).length"
    assert page.evaluate(unnamed) == 0
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("heading", name="curl").is_visible()
    page.get_by_role("button", name=re.compile("^시간이")).focus()
    page.keyboard.press("Enter")
    opened.answer("texts")


@pytest.mark.parametrize(
    ("locale", "theme"), [pytest.param("en-US", "light", marks=pytest.mark.slow), ("ko-KR", "dark")]
)
def test_it_fits_a_phone_and_can_be_read(
    opened: Opened, browser: Browser, running: Service, locale: str, theme: str
) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 740}, locale=locale)
    page.goto(running.settings.service_url)
    page.locator("#theme").select_option(theme)
    page.get_by_role("button", name=re.compile("^정말 재미있게")).click(timeout=SOON)
    page.get_by_role("button", name=re.compile("^오늘 날씨가")).click()
    for panel in ("texts", "pairs"):
        Opened(page, [], []).answer(panel)
        page.locator(f"#{panel} summary").click()
    page.locator("#lines").fill(f"{TEXT}\n{'가' * 10_001}")
    page.locator("#batch .start").click()
    page.locator("#batch td.error").wait_for(timeout=SOON)
    page.locator("#history li").nth(1).wait_for(timeout=SOON)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    measured = page.evaluate(CONTRAST)
    assert len(measured) > 60
    assert [item for item in measured if item[1] < 4.5] == []
    page.close()


def test_choices_and_history_survive_a_reload(browser: Browser, running: Service, waited: str) -> None:
    page = browser.new_page(locale="ko-KR", color_scheme="dark")
    page.goto(running.settings.service_url)
    page.get_by_label("한국어 문장").fill(TEXT, timeout=SOON)
    page.get_by_role("heading", name="문장 분류", exact=True).wait_for(timeout=SOON)
    tried = page.locator("#history li")
    tried.wait_for(timeout=SOON)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_label("화면 테마").select_option("light")
    page.get_by_label("언어").select_option("en")
    assert page.evaluate(background) != dark
    page.reload()
    page.get_by_role("heading", name="Classify a text", exact=True).wait_for(timeout=SOON)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate(background) != dark
    [wanted] = running.client.classify([TEXT]).results
    assert f"{wanted.label}, {wanted.score:.1%} sure" in tried.inner_text()
    tried.get_by_role("button").click()
    assert Opened(page, [], []).answer("texts").startswith(wanted.label)
    assert page.get_by_label("Korean text").input_value() == TEXT
    page.get_by_role("button", name="Clear").click()
    assert page.locator("#history").is_hidden()
    page.close()


def test_both_languages_have_every_text(opened: Opened) -> None:
    texts = opened.page.evaluate("import('./page/texts.js').then((module) => module.TEXTS)")
    assert texts["en"].keys() == texts["ko"].keys()
    code = "".join(path.read_text(encoding="utf-8") for path in PAGE.iterdir() if path.suffix in (".js", ".html"))
    unused = {name for name in texts["en"] if "." not in name and not re.search(rf"[\"\b.]{name}[\"\b]", code)}
    assert unused == set()
    used = re.findall(r'say\((?:\w+ \? )?"(\w+)"(?: : "(\w+)")?|data-(?:say|name)="(\w+)"', code)
    assert {name for names in used for name in names if name} <= texts["en"].keys()
    for name, text in texts["en"].items():
        holes = [sorted(re.findall(r"\{\w+\}", found)) for found in (text, texts["ko"][name])]
        assert holes[0] == holes[1], name


def test_page_answers_the_rows_of_a_file(opened: Opened, running: Service) -> None:
    texts = [f"{SENTENCES[row % 4]} {row}" for row in range(148)]
    texts += ['"따옴표", 쉼표\n줄바꿈', "", "가" * 10_001]
    written = io.StringIO(newline="")
    csv.writer(written).writerows([["id", "본문"], *([row, text] for row, text in enumerate(texts))])
    file = {"name": "reviews.csv", "mimeType": "text/csv", "buffer": written.getvalue().encode("cp949")}
    asked: list[list[str]] = []
    opened.page.on("request", lambda request: asked.append((request.post_data_json or {}).get("texts")))
    opened.batch.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type]
    opened.batch.get_by_text("reviews.csv. Rows: 151").wait_for(timeout=SOON)
    assert opened.batch.locator(".column option:checked").first.inner_text() == "본문"
    assert opened.run_batch() == "Rows done: 151 of 151. Rows with an error: 2."
    assert [len(sent) for sent in asked if sent] == [100, 50, 49], "the refused text is left out"
    assert opened.batch.locator("tbody tr").count() == 100
    rows = opened.download()
    assert [(int(row["id"]), row["본문"]) for row in rows] == list(enumerate(texts))
    wanted = running.client.classify(texts[:149]).results
    for row, result in zip(rows, wanted, strict=False):
        assert row["nsmc_label"] == result.label
        assert float(row["nsmc_score"]) == pytest.approx(result.score, abs=0.05), "other batches, int8"
        assert float(row["nsmc_probability_negative"]) == pytest.approx(result.probabilities["negative"], abs=0.05)
        assert (row["nsmc_release"], row["nsmc_error"]) == ("nsmc-" + "a" * 16, "")
    assert rows[149]["nsmc_error"] == "The text is empty."
    assert "at most 10000 per text" in rows[150]["nsmc_error"]


def test_page_continues_rows_after_stop_and_failures(opened: Opened) -> None:
    held: list[Route] = []
    busy = {"error": {"type": "overloaded", "message": "too many requests", "index": None}}
    broken = {"error": {"type": "internal", "message": "an unexpected error", "index": None}}
    answers = iter([("hold", {}), (429, busy), ("pass", {}), (500, broken)])

    def answer(route: Route) -> None:
        status, error = next(answers, ("pass", {}))
        if status == "hold":
            held.append(route)
        elif status == "pass":
            route.continue_()
        else:
            route.fulfill(status=int(status), headers={"Retry-After": "1"}, json=error)

    opened.page.route("**/similarity", answer)
    opened.batch.get_by_label("Recipe").select_option("klue-sts")
    lines = opened.batch.locator("textarea")
    lines.fill(TEXT)
    opened.batch.get_by_text("the table needs two columns").wait_for()
    assert opened.batch.get_by_role("button", name="Start").is_disabled()
    lines.fill("\n".join(f"{SENTENCES[4]} {row}\t{SENTENCES[5]}" for row in range(250)))
    with opened.page.expect_request("**/similarity"):
        opened.batch.get_by_role("button", name="Start").click()
    opened.batch.get_by_role("button", name="Stop").click()
    start = opened.batch.get_by_role("button", name="Start")
    start.click()
    opened.batch.get_by_text("too many requests. Trying again in 1 s.").wait_for(timeout=SOON)
    opened.batch.get_by_text("Rows 101 to 200: an unexpected error").wait_for(timeout=SOON)
    assert opened.run_batch() == "Rows done: 250 of 250. Rows with an error: 0."
    rows = opened.download()
    assert len(rows) == 250
    assert all(row["klue-sts_score"] and row["klue-sts_similar"] in ("true", "false") for row in rows)


def answer_with(document: object) -> Callable[[Route], None]:
    return lambda route: route.fulfill(json=document)


@pytest.mark.slow
def test_batch_survives_a_time_without_its_release(opened: Opened, running: Service) -> None:
    deployed = httpx.get(f"{running.settings.service_url}/releases").json()
    others = {name: release for name, release in deployed["recipes"].items() if name != "nsmc"}
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    opened.batch.locator("textarea").fill("\n".join(f"{SENTENCES[0]} {row}" for row in range(250)))
    broken = {"error": {"type": "internal", "message": "an unexpected error", "index": None}}
    opened.page.route("**/classify", lambda route: route.fulfill(status=500, json=broken))
    opened.page.route("**/classify", lambda route: route.continue_(), times=1)
    assert "Rows 101 to 200: an unexpected error" in opened.run_batch()
    opened.page.unroute("**/classify")
    for recipes in ({}, others):
        changed = deployed | {"recipes": recipes, "deployment": len(recipes)}
        opened.page.route("**/releases", answer_with(changed), times=1)
        with opened.page.expect_response("**/releases"):
            opened.page.evaluate(look)
        opened.page.locator("#served").wait_for(state="visible" if recipes else "hidden", timeout=SOON)
        assert len([row for row in opened.download() if row["nsmc_label"]]) == 100
    assert opened.run_batch() == "Rows done: 250 of 250. Rows with an error: 0."


def test_download_has_no_formula(opened: Opened) -> None:
    formulas = [
        "=1+1",
        "+82 2",
        "-",
        "- 좋다",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        " =1",
        "＝1+1",
        '=HYPERLINK("http://x","y")',
    ]
    plain = ["-0.5", "+3", "-1e-05", "좋다", "a=1", "'=1", "", "1-2"]
    code = "(cells) => import('./page/table.js').then((table) => table.toCsv([cells]))"
    written = opened.page.evaluate(code, [*formulas, *plain, -0.5, 1e-7])
    [cells] = csv.reader(io.StringIO(written.removeprefix("\ufeff"), newline=""))
    assert cells == [*(f"'{text}" for text in formulas), *plain, "-0.5", "1e-7"]


def test_tables_are_read_in_every_usual_form(opened: Opened) -> None:
    code = """([text, name]) => import('./page/table.js').then((table) => {
      try { return name ? table.readFile(text, name) : table.readPasted(text); }
      catch (error) { return [error.reason, error.values.line]; }
    })"""

    def read(text: str, name: str = "") -> object:
        return opened.page.evaluate(code, [text, name])

    assert read('a;"b;""c"""\r\n;d\n', "x.csv") == [["a", 'b;"c"'], ["", "d"]]
    assert read('"a,b";c\nd;e', "x.csv") == [["a,b", "c"], ["d", "e"]]
    assert read('a,"b\nc",\n\nd', "x.csv") == [["a", "b\nc", ""], ["d"]]
    assert read('a\n"b" c', "x.csv") == ["openQuote", 2]
    assert read('a\n"b', "x.csv") == ["openQuote", 2]
    # NSMC's files quote nothing, and have carriage returns in texts.
    assert read('1\t"좋다\t0\n2\ta\rb\t1\n', "x.tsv") == [["1", '"좋다', "0"], ["2", "a\rb", "1"]]
    assert read('"a, b"\n\nc\td', "x.txt") == [['"a, b"'], ["c\td"]]
    assert read('"a"\r\nb, c') == [['"a"'], ["b, c"]]
    assert read('a\t"b\nc"') == [["a", "b\nc"]]
    assert read("") == []
    decoded = """(bytes) => import('./page/table.js').then((table) => {
      try { return table.decode(new Uint8Array(bytes), 'x'); } catch (error) { return error.reason; }
    })"""
    for encoding in ("utf-8", "utf-8-sig", "cp949", "utf-16"):
        assert opened.page.evaluate(decoded, list("똠방각하".encode(encoding))) == "똠방각하"
    assert opened.page.evaluate(decoded, [0x61, 0xFF]) == "unreadable"


class BlankPage(BaseHTTPRequestHandler):
    """Answers with a page of another origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def allowed() -> Iterator[str]:
    """The URL of another origin, whose pages may call `varied`."""
    with http_server.running(HTTPServer(("127.0.0.1", 0), BlankPage)) as url:
        yield url


@pytest.fixture(scope="module")
def varied(
    tmp_path_factory: pytest.TempPathFactory,
    allowed: str,
    classifier: TinyModel,
    pair_classifier: TinyModel,
    sentence_encoder: TinyModel,
    text_scorer: TinyModel,
) -> Iterator[Service]:
    """A service with a release of each kind."""
    models = classifier, pair_classifier, sentence_encoder, text_scorer
    settings = {"SAEBYEOK_CORS_ORIGINS": allowed, "SAEBYEOK_WORKERS": "1"}
    with serving(tmp_path_factory.mktemp("varied"), settings, *models) as service:
        yield service


@pytest.mark.slow
def test_every_kind_of_release_can_be_tried(browser: Browser, varied: Service) -> None:
    with browser.new_page() as page:
        opened = Opened(page, [], [])
        page.on("console", lambda message: opened.said.append(message.text))
        page.on("pageerror", lambda error: opened.said.append(str(error)))
        page.goto(varied.settings.service_url)
        page.get_by_label("Korean text").fill(SENTENCES[4], timeout=SOON)
        opened.answer("texts")
        page.locator("#texts select").select_option("stars")
        page.get_by_role("heading", name="Score a text").wait_for()
        page.locator("#texts .ends").wait_for()
        assert page.locator("#texts .examples").is_hidden(), "only shipped recipes have examples"
        [scored] = varied.client.score([SENTENCES[4]]).results
        assert opened.answer("texts").startswith(f"{round(scored.score, 2):g} of 5")
        assert "similar" not in opened.answer("texts")
        page.locator("#texts summary").click()
        assert f"{varied.settings.service_url}/score" in page.locator("#texts pre").first.inner_text()
        page.get_by_label("First sentence").fill(SENTENCES[4])
        page.get_by_label("Second sentence").fill(SENTENCES[5])
        opened.answer("pairs")
        page.locator("#pairs select").select_option("same")
        page.get_by_role("heading", name="Classify two sentences").wait_for()
        page.locator("#pairs .bars").wait_for()
        [classified] = varied.client.classify(pairs=[SENTENCES[4:6]]).results
        assert opened.answer("pairs").startswith(classified.label)
        assert opened.said == []


#: Calls the service, with a preflight because of the key; returns the label and the readable headers, or an error.
CALL = """async ([url, text]) => {
  try {
    const headers = { "Content-Type": "application/json", Authorization: "Bearer a-key-of-the-tests" };
    const answer = await fetch(url + "/classify", { method: "POST", headers, body: JSON.stringify({ texts: [text] }) });
    const readable = [...answer.headers.keys()].filter((name) => name.startsWith("x-") || name.startsWith("server"));
    return [(await answer.json()).results[0].label, ...readable];
  } catch (error) { return [error.name]; }
}"""


def test_page_of_an_allowed_origin_calls_the_service(
    browser: Browser, running: Service, waited: str, varied: Service, allowed: str
) -> None:
    with http_server.running(HTTPServer(("127.0.0.1", 0), BlankPage)) as other, browser.new_page() as page:
        url = varied.settings.service_url
        page.goto(allowed)
        called = page.evaluate(CALL, [url, TEXT])
        assert called[0] in ("negative", "positive")
        assert {"server-timing", "x-request-id"} <= set(called[1:])
        assert page.evaluate(CALL, [running.settings.service_url, TEXT]) == ["TypeError"], "it is off by default"
        page.goto(other)
        assert page.evaluate(CALL, [url, TEXT]) == ["TypeError"]


@pytest.mark.slow
def test_page_recovers_when_the_service_returns(
    browser: Browser, running: Service, waited: str, classifier: TinyModel
) -> None:
    page = browser.new_page()
    page.goto(running.settings.service_url)
    page.get_by_label("Korean text").fill(TEXT, timeout=SOON)
    before = Opened(page, [], []).answer("texts")
    assert running.stop() == 0
    page.get_by_label("Korean text").fill(SENTENCES[1])
    page.get_by_text("The service does not answer. This page keeps trying.").wait_for(timeout=SOON)
    assert "The request is repeated" in page.locator("#texts .answer").inner_text()
    # The other tests of this file also use it, in any order.
    running.start()
    running.wait_live()
    after = Opened(page, [], []).answer("texts")
    assert after != before
    assert page.locator("#state").is_hidden()
    page.close()
