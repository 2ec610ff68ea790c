"""The page in a real browser: pictures dropped, chosen and pasted; errors, keys, screen readers, phones, the dark."""

import base64
import contextlib
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from serve_cases import RED, picture
from test_serve_command import serving, write_weights

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
pytestmark = pytest.mark.slow

COLOURS = [(240, 30, 30), (220, 60, 40), (30, 200, 40), (20, 40, 220), (200, 200, 30)]
DROP = """([field, files]) => {
  const carried = new DataTransfer();
  for (const [name, data] of files) {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    carried.items.add(new File([bytes], name));
  }
  const zone = document.querySelector(`[data-field=${field}] .drop`);
  for (const type of ["dragover", "drop"])
    zone.dispatchEvent(new DragEvent(type, { dataTransfer: carried, bubbles: true, cancelable: true }));
}"""


PASTE = """(data) => {
  const carried = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  carried.items.add(new File([bytes], "pasted.png"));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried, bubbles: true, cancelable: true }));
}"""


def chromium() -> str | None:
    """$CHROMIUM, the system's, or None for the one that playwright has."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        try:
            made = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield made
        made.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    from cli_cases import run

    folder = tmp_path_factory.mktemp("serve")
    (folder / "pictures").mkdir()
    for i, colour in enumerate(COLOURS):
        (folder / "pictures" / f"{i}.png").write_bytes(picture(colour, size=(90, 60)))
    names = [f"--pretrained_model={write_weights(folder)}", f"--gallery={folder}/g", "--use_gpu=False"]
    assert run("infer", *names, f"--input={folder}/pictures").status == 0
    with serving(folder, *names) as server:
        yield f"http://127.0.0.1:{server.port}", folder


@pytest.fixture
def page(browser, address):
    """A new page; whatever the browser complains of, a blocked script or style too, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    page.on(
        "console",
        lambda said: (
            complaints.append(f"{said.text} {said.location['url']}") if said.type in ("error", "warning") else None
        ),
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_default_timeout(15_000)
    page.goto(address[0])
    yield page
    found = list(complaints)
    context.close()
    refusals = ("422", "404")  # an answer that is an error is told by Chromium, whatever the page makes of it
    assert not [line for line in found if not any(f"status of {status}" in line for status in refusals)]


def drop(page, field: str, *files: bytes) -> None:
    page.evaluate(DROP, [field, [[f"{i}.png", base64.b64encode(data).decode()] for i, data in enumerate(files)]])


def violations(page) -> list[str]:
    found = axe.Axe().run(page).response["violations"]
    return [f"{item['id']}: {item['nodes'][0]['html'][:120]}" for item in found]


def compared(page, other: bytes = RED) -> str:
    drop(page, "a", RED)
    drop(page, "b", other)
    page.wait_for_selector("#compare .verdict")
    return page.inner_text("#compare .verdict")


def test_two_dropped_pictures_get_a_similarity_and_a_verdict(page):
    said = compared(page)
    assert "The same" in said and "1.00" in said and "From similarity 0.50 on" in said and "1 in 1,000" in said
    assert page.locator(".full img").count() == 2
    page.click("[data-field=b] .remove")
    assert "Add two pictures" in page.inner_text("#compare .answer")
    assert page.evaluate("document.activeElement.closest('.zone').dataset.field") == "b"
    drop(page, "a", RED, picture((10, 200, 30)))  # two at once go to the two places
    page.wait_for_selector("#compare .verdict")
    page.click("summary")
    assert "FAR" in page.inner_text("#compare .verdict dl")


def test_bad_files_are_told_at_their_place_and_the_next_is_taken(page):
    drop(page, "a", RED)
    drop(page, "b", b"no picture")
    page.wait_for_selector("[data-field=b] .problem:not(:empty)")
    assert "not a picture" in page.inner_text("[data-field=b] .problem")
    assert page.get_attribute("[data-field=b] .drop input", "aria-invalid") == "true"
    assert not page.inner_text("[data-field=a] .problem")
    drop(page, "b", b"")
    assert "empty" in page.inner_text("[data-field=b] .problem")
    assert "The same" in compared(page) and not page.inner_text("[data-field=b] .problem")


def test_a_search_shows_the_nearest_first(page, address):
    page.click("#tab-search")
    page.set_input_files("[data-field=picture] .drop input", str(address[1] / "pictures" / "2.png"))
    page.wait_for_selector(".result")
    names = page.locator(".result .name").all_inner_texts()
    assert len(names) == 5 and names[0] == "2.png"
    assert "5 nearest of 5" in page.inner_text("#search .answer")
    for i in range(5):
        page.locator(".result img").nth(i).scroll_into_view_if_needed()
        api.expect(page.locator(".result img").nth(i)).to_have_js_property("naturalWidth", 90)
    page.fill("#top-k", "2")
    page.press("#top-k", "Enter")
    api.expect(page.locator(".result")).to_have_count(2)
    moved = Path(address[1] / "pictures" / "2.png")
    moved.rename(moved.with_suffix(".away"))
    try:
        page.reload()  # else the browser shows what it has
        page.set_input_files("[data-field=picture] .drop input", str(address[1] / "pictures" / "1.png"))
        page.wait_for_selector("text=The picture is gone")
        assert page.locator(".result").count() == 5
    finally:
        moved.with_suffix(".away").rename(moved)


def test_keys_are_enough(page):
    with page.expect_file_chooser() as chooser:  # round all three keys: it returns before Chromium has been told
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "tab-compare"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('.zone').dataset.field") == "a"
        page.keyboard.press("Enter")
    chooser.value.set_files({"name": "a.png", "mimeType": "image/png", "buffer": RED})
    page.wait_for_selector("[data-field=a].full")
    page.evaluate("document.activeElement.blur()")
    page.evaluate(PASTE, base64.b64encode(RED).decode())  # to the place that is empty
    page.wait_for_selector("#compare .verdict")
    page.focus("#tab-compare")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#search") and not page.is_visible("#compare")
    page.keyboard.press("Home")
    assert page.is_visible("#compare .verdict")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(page, address, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 740})
    sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert violations(page) == [] and page.evaluate(sideways) == 0
    compared(page, picture((10, 200, 30)))
    page.click("summary")
    assert violations(page) == [] and page.evaluate(sideways) == 0
    drop(page, "b", b"no picture")
    page.wait_for_selector("[data-field=b] .problem:not(:empty)")
    assert violations(page) == [] and page.evaluate(sideways) == 0
    page.click("#tab-search")
    drop(page, "picture", RED)
    page.wait_for_selector(".result")
    assert violations(page) == [] and page.evaluate(sideways) == 0
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 150) == (scheme == "dark")


class Elsewhere(BaseHTTPRequestHandler):
    """A page of another origin: the same machine on another port is one."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>elsewhere</title>")

    def log_message(self, *said: object) -> None:
        pass


def test_a_page_elsewhere_gets_nothing(browser, address):
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as other,
        contextlib.closing(browser.new_context()) as context,
    ):
        threading.Thread(target=other.serve_forever).start()
        try:
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{other.server_port}")
            send = """(address) => fetch(`${address}/api/compare`, {method: "POST", mode: "no-cors"})
              .then((answer) => answer.type, () => "nothing")"""
            assert page.evaluate(send, address[0]) == "nothing"
            show = """(address) => new Promise((done) => {
              const image = new Image();
              image.onload = () => done("shown");
              image.onerror = () => done("nothing");
              image.src = `${address}/api/gallery/0`;
            })"""
            assert page.evaluate(show, address[0]) == "nothing"
            read = "(address) => fetch(`${address}/health`).then((answer) => answer.text(), () => 'nothing')"
            assert page.evaluate(read, address[0]) == "nothing"
        finally:
            other.shutdown()
