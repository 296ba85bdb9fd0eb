"""The pictures of the page in the documents. `python -m tests.page.pictures` draws them."""

import shutil

from playwright.sync_api import Browser, Page, sync_playwright

from models.text.tokenizer import HubTokenizer
from tests.page.site import APPLES, SETTINGS, Story, site
from tests.page.test_chat import CRATE
from tests.processes import ROOT

DOCS = ROOT / "docs"
PACE = 0.02
ANSWER = "A crate has **31** good apples, so 12 crates have\n\n$$12 \\times (36 - 5) = 372.$$"
STORIES = {"crate": Story(APPLES, ANSWER, probability=0.93)}
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}


def opened(browser: Browser, url: str, route: str, comparison: str, **options: object) -> Page:
    """The page with a comparison set up on a route."""
    page = browser.new_page(**options)
    page.goto(url)
    page.locator("#columns > details").first.wait_for(state="attached")
    if page.locator("#toggle").is_visible():
        page.click("#toggle")
    page.get_by_label("Route", exact=True).first.select_option(route)
    page.click(f"#presets >> text={comparison}")
    page.mouse.move(0, 0)
    if page.locator("#toggle").is_visible():
        page.click("#toggle")
    page.fill("#question", CRATE)
    page.press("#question", "Enter")
    return page


def desktop(browser: Browser, url: str) -> None:
    """Without thinking, as the model likes, and with it: one has answered while two think."""
    page = opened(browser, url, "threshold", "Modes", viewport={"width": 1280, "height": 820})
    page.locator(".thought .text").last.get_by_text("Then 12 crates").wait_for()
    page.locator(".reply").nth(1).locator(".decision > summary").click()
    page.screenshot(path=DOCS / "page.png")
    page.close()


def phone(browser: Browser, url: str) -> None:
    """A small model with a target, and what the record says of it."""
    page = opened(browser, url, "guided", "Small and target", **PHONE)
    page.locator("#send").wait_for(timeout=60_000)
    guided = page.locator(".reply").nth(1)
    guided.locator(".thought > summary").click()
    guided.locator(".decision > summary").click()
    guided.evaluate("each => each.scrollIntoView()")
    page.evaluate("document.activeElement.blur()")
    page.screenshot(path=DOCS / "page-phone.png")
    page.close()


def main() -> None:
    tokenizer = HubTokenizer(ROOT / "demo/tokenizer")
    settings = SETTINGS.replace("think_threshold = 0.5", "think_threshold = 0.5\nbudgets = { default = 240 }")
    with site(tokenizer, settings, token_delay=PACE, stories=STORIES) as here, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        desktop(browser, here.url)
        phone(browser, here.url)


if __name__ == "__main__":
    main()
