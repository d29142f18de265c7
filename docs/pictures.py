"""Take the screenshots of the documentation from a running stack, with a real browser.

After `make up`, run `.venv/bin/python docs/pictures.py`. The pictures are written to docs/pictures/. `night.png` shows
the others side by side: a night from the trigger to the endpoint.
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright

from pipeline.errors import SaebyeokError
from pipeline.settings import Settings, load_settings
from pipeline.stack.airflow_api import AirflowApi
from pipeline.stack.airflow_home import USER, read_password
from pipeline.stack.lifecycle import DAG, open_api

PICTURES = Path(__file__).parent / "pictures"
WIDE, TALL = ViewportSize(width=1500, height=800), ViewportSize(width=1200, height=1500)
#: Milliseconds until animations end: graphs are laid out and faded in after the page has loaded.
REST = 2500
#: Pictures of the strip, in the order of a night, with their captions.
NIGHT = {
    "form": "A person triggers a run",
    "graph": "The tasks of each recipe",
    "data-docs": "The data pass their rules",
    "report": "The model passes its gates",
    "service": "The release is live",
}
STRIP = """<style>
  body { display: flex; gap: 14px; margin: 14px; font: 15px sans-serif; background: #fff }
  figure { flex: 1; margin: 0; min-width: 0 }
  div { height: 330px; overflow: hidden; border: 1px solid #bbb }
  img { width: 100% }
  figcaption { padding-top: 6px; text-align: center }
</style>"""


def sign_in(page: Page, settings: Settings) -> None:
    """Sign in to Airflow through its form."""
    page.goto(settings.airflow_url)
    page.fill("input[name=username]", USER)
    page.fill("input[name=password]", read_password(settings))
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "login" not in url)


def keep(page: Page, name: str, *, full: bool = False) -> None:
    """Save a screenshot of the page."""
    page.wait_for_timeout(REST)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=full)
    sys.stderr.write(f"{PICTURES / name}.png\n")


def graph(page: Page, settings: Settings, run: str) -> None:
    """Take the DAG's graph with the states of a run."""
    page.set_viewport_size(WIDE)
    page.goto(f"{settings.airflow_url}/dags/{DAG}/runs/{run}")
    page.get_by_label("Show Graph").click()
    page.wait_for_timeout(REST)
    page.get_by_label("Expand all task groups").click()
    page.get_by_label("Collapse Details Panel").click()
    page.wait_for_timeout(REST)
    page.get_by_label("Fit View").click()
    keep(page, "graph")


def form(page: Page, settings: Settings) -> None:
    """Take the whole trigger form."""
    page.set_viewport_size({"width": 1100, "height": 1660})
    page.goto(f"{settings.airflow_url}/dags/{DAG}")
    page.get_by_label("Trigger Dag").first.click()
    keep(page, "form")


def artifacts(page: Page, settings: Settings, api: AirflowApi, run: str, recipe: str) -> None:
    """Take the report and the data docs of one recipe, at the addresses of their buttons in Airflow."""
    for task, file, name in (("decide", "report.html", "report"), ("validate", "docs/index.html", "data-docs")):
        ref = api.returned(DAG, run, f"{recipe}.{task}")
        page.set_viewport_size(TALL)
        page.goto(f"{settings.airflow_url}/saebyeok/{ref}/{file}")
        keep(page, name)


def service(page: Page, settings: Settings) -> None:
    """Take the service's page."""
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto(settings.service_url)
    for panel in ("texts", "pairs"):
        page.locator(f"#{panel} .examples button").first.click()
        page.locator(f"#{panel} .result").wait_for()
    keep(page, "service")


def strip(page: Page) -> None:
    """Compose the pictures of a night into one strip."""
    frames = [
        f'<figure><div><img src="{_data_url(PICTURES / f"{name}.png")}"></div>'
        f"<figcaption>{n}. {caption}</figcaption></figure>"
        for n, (name, caption) in enumerate(NIGHT.items(), 1)
    ]
    page.set_viewport_size({"width": 1700, "height": 400})
    page.set_content(STRIP + "".join(frames))
    keep(page, "night")


def _data_url(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def main() -> int:
    """Take all pictures. Return the exit status. Raises SaebyeokError if no run has succeeded yet."""
    settings = load_settings()
    with open_api(settings) as api, sync_playwright() as playwright:
        run = api.newest_run(DAG, "success")
        if run is None:
            raise SaebyeokError("no run has succeeded yet; run `make up` first")
        # A browser writes to its home directory: give it a separate one.
        at_home = {"XDG_CONFIG_HOME": str(settings.home / "browser"), "XDG_CACHE_HOME": str(settings.home / "cache")}
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"], env={**os.environ, **at_home}
        )
        page = browser.new_page(locale="en-US", timezone_id="Asia/Seoul")
        sign_in(page, settings)
        graph(page, settings, run)
        form(page, settings)
        artifacts(page, settings, api, run, "nsmc")
        service(page, settings)
        # The policy of the service's page would block the pictures.
        strip(browser.new_page())
        browser.close()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SaebyeokError as error:
        sys.exit(f"error: {error}")
