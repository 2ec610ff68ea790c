"""The page in a real browser: quiet, self-contained, as wide as a phone, and without a barrier that axe knows of."""

import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from page_cases import embedded, material, records

from metric_learning.metrics import per_group
from metric_learning.page.pair_charts import frr_chart
from metric_learning.page.writing import page_html

pytestmark = pytest.mark.slow
api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")


# Text whose box is not inside its drawing (by a unit: the box is higher than the letters).
BEYOND = """() => [...document.querySelectorAll('.chart > svg text')].filter(text => {
  const [box, room] = [text, text.ownerSVGElement].map(one => one.getBoundingClientRect());
  const beyond = Math.max(room.left - box.left, box.right - room.right, room.top - box.top, box.bottom - room.bottom);
  return text.textContent && beyond > 1;
}).map(text => text.textContent)"""


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as started:
        found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
        own = started.chromium.executable_path
        program = next((name for name in [own if Path(own).exists() else None, *found] if name), None)
        if program is None:
            pytest.skip("no Chromium: playwright install chromium, or install one of the system")
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    names = [f"<script>alert({label})</script> {'a long name ' * 4}" for label in range(9)]
    losses = {step: 4.0 / step for step in range(1, 60)}
    records(folder, {"train/loss": losses, "val/recall@1": {0: 0.2, 30: 0.4, 59: 0.5}})
    path = folder / "page.html"
    path.write_text(page_html(material(embedded(folder / "pictures"), names, run=folder)), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")])
def test_the_page_is_quiet_fits_and_has_no_barrier(browser, file, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    for details in page.locator("details").all():
        details.evaluate("one => one.open = true")
    assert said == [] and [url for url in asked if not url.startswith("data:image/jpeg")] == [file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 384) == (scheme == "light")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    context.close()


def test_all_text_of_the_drawings_is_inside_them(browser, file):
    """On a phone the letters are largest. A drawing with the longest names and bars, and those of a page."""
    groups = ("Middle Eastern", "Southeast Asian", "W" * 30, "漢" * 30)
    result = per_group({name: ([0.0], [0.5] * 20) for name in groups}, fars=(0.1,))
    style = (files("metric_learning.page") / "style.css").read_text(encoding="utf-8")
    bars = file.with_name("bars.html")
    body = f'<main><figure class="chart">{frr_chart(result).svg}</figure></main>'
    bars.write_text(f"<!DOCTYPE html><meta charset=utf-8><style>{style}</style>{body}", encoding="utf-8")
    for width in (360, 1280):
        page = browser.new_page(viewport={"width": width, "height": 800})
        for place in (bars, file):
            page.goto(place.as_uri())
            assert page.evaluate(BEYOND) == []
        page.close()


def test_by_keyboard(browser, file):
    page = browser.new_page()
    page.goto(file.as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the figures"
    box = page.locator(".skip").bounding_box()
    assert box["x"] >= 0 and box["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    width = page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
    assert width >= 2 and page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.close()


def test_no_script_runs_in_it(browser, file):
    """What the policy of the page forbids, were anything left unescaped."""
    text = file.read_text(encoding="utf-8").replace("</h1>", "</h1><script>document.title = 'hit'</script>", 1)
    hit = file.with_name("hit.html")
    hit.write_text(text, encoding="utf-8")
    for bypassed in (False, True):
        context = browser.new_context(bypass_csp=bypassed)
        page = context.new_page()
        page.goto(hit.as_uri())
        assert (page.title() == "hit") == bypassed
        context.close()
