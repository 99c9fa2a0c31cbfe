"""The page in Chromium: what a person does in its three tabs, wide and narrow, by keyboard, and as axe judges it."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import ROOT
from support.chromium import chromium, needs_chromium
from support.reference import playwright as _playwright  # type: ignore[attr-defined] # noqa: F401
from support.reference import starlette as _starlette  # type: ignore[attr-defined] # noqa: F401
from support.server import Server, serving

PHOTOS = ROOT / "examples" / "photos"
TOKEN = "un-segreto-di-prova-lungo"
SIZES = {"wide": (1200, 900), "narrow": (360, 740)}

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(PHOTOS, folder / "foto")
    dated = Image.open(folder / "foto" / "gatto.jpg")
    exif = Image.Exif()
    exif[306] = "2021:05:17 10:00:00"
    dated.save(folder / "foto" / "gatto-2021.jpg", exif=exif, quality=60)
    dated.close()
    with serving(folder / "log.txt", folder / "foto") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def opened(server: Server, browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end nothing was logged, and nothing else than this server was asked."""
    contexts: list[Any] = []
    problems: list[str] = []

    def open_page(
        size: str = "wide", *, scheme: str = "light", locale: str = "it-IT", at: str = "", address: str = ""
    ) -> Any:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((address or server.address, "blob:"))
                else problems.append(f"asked {request.url}")
            ),
        )
        page.goto((address or server.address) + at)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [problem for problem in problems if "401" not in problem]


def search(page: Any, text: str) -> list[str]:
    page.locator("#growing > *").first.wait_for(state="detached")
    page.get_by_label("Che cosa cerchi?").fill(text)
    page.get_by_role("button", name="Cerca", exact=True).click()
    page.locator("#search-status", has_text="Sto cercando").wait_for(state="detached")
    return names(page)


def names(page: Any) -> list[str]:
    page.wait_for_load_state("networkidle")
    return [text.split("\n")[0] for text in page.locator("#results li p").all_inner_texts()]


@pytest.mark.parametrize("size", SIZES)
def test_a_sentence_finds_photographs_and_says_if_it_finds_none(opened: Callable[..., Any], size: str) -> None:
    page = opened(size)
    assert search(page, "una tazza di caffè")[0] == "caffe.jpg"
    assert page.locator("#results img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    assert search(page, "una spiaggia al tramonto") == []
    assert page.locator("#search-status").inner_text() == "Non ho trovato nulla che lo mostri."
    page.get_by_text("Date e altri filtri").click()
    page.get_by_label("Mostra le più vicine anche se non c'è").check()
    page.get_by_text("ecco le più vicine").wait_for()
    assert len(names(page)) == 5
    page.get_by_label("Dal giorno").fill("2021-01-01")
    page.locator("#results li").nth(1).wait_for(state="detached")
    assert names(page) == ["gatto-2021.jpg"]


def test_more_of_this_and_less_of_that_and_one_photograph_large(opened: Callable[..., Any]) -> None:
    page = opened()
    assert {*search(page, "un gatto")[:2]} == {"gatto.jpg", "gatto-2021.jpg"}
    for wish in ("Meno: gatto.jpg", "Più: razzo.jpg", "Meno: gatto-2021.jpg"):
        with page.expect_response("**/api/search"):
            page.get_by_role("button", name=wish, exact=True).click()
    page.locator("#results li p").first.filter(has_text="razzo.jpg").wait_for()
    assert page.locator("#wishes li").all_inner_texts()[1].startswith("più: razzo.jpg")
    for _ in range(3):
        page.locator("#wishes button").first.click()
    page.locator("#wishes li").first.wait_for(state="detached")
    page.get_by_role("button", name="Simili: caffe.jpg").click()
    page.locator("#wishes", has_text="simili a questa: caffe.jpg").wait_for()
    page.locator("#results li p").first.filter(has_text="caffe.jpg").wait_for()
    page.locator("#results .open").first.click()
    viewer = page.get_by_role("dialog", name="caffe.jpg")
    viewer.wait_for()
    assert viewer.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 600
    viewer.get_by_role("button", name="Dov'è?").click()
    page.get_by_role("tab", name="Dove", selected=True).wait_for()
    page.locator("#where .shown").wait_for()


@pytest.mark.parametrize("size", SIZES)
def test_a_photograph_gets_its_name_and_its_place(opened: Callable[..., Any], size: str) -> None:
    page = opened(size, at="/#name")
    page.locator("#name input[type=file]").set_input_files(PHOTOS / "gatto.jpg")
    page.locator("#name button.main").click()
    page.locator("#scores li").first.wait_for()
    assert page.locator("#scores .row").first.inner_text().split() == ["gatto", "100%"]
    page.get_by_label("Etichette, una per riga").fill("un violino\nuna barca")
    page.locator("#name button.main").click()
    page.get_by_text("Nessuna di queste.").wait_for()
    page.get_by_role("tab", name="Dove").click()
    page.get_by_label("Che cosa cerchi nella fotografia?").fill("il gatto")
    page.locator("#where button.main").click()
    page.get_by_text("Soprattutto al").wait_for()
    canvas = page.locator("#where canvas")

    def drawn() -> int:
        return canvas.evaluate(
            "canvas => canvas.getContext('2d').getImageData(canvas.width * .3, canvas.height * .4, 1, 1).data[3]"
        )

    strong = drawn()
    assert strong > 100
    slider = page.get_by_label("Intensità della mappa")
    slider.focus()
    slider.press("Home")
    assert drawn() == 0
    image, over = (page.locator(f"#where {part}").bounding_box() for part in (".shown img", "canvas"))
    assert image == pytest.approx(over, abs=0.5)  # the map lies exactly over the photograph


def test_a_photograph_is_dropped_and_pasted(opened: Callable[..., Any]) -> None:
    page = opened()
    give = """async ([kind, data]) => {
        const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
        const carried = new DataTransfer();
        carried.items.add(new File([bytes], "foto.jpg", {type: "image/jpeg"}));
        const event = kind === "drop" ? new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true})
            : new ClipboardEvent("paste", {clipboardData: carried, bubbles: true, cancelable: true});
        document.body.dispatchEvent(event);
    }"""
    import base64

    for kind, name in (("drop", "gatto.jpg"), ("paste", "razzo.jpg")):
        page.get_by_role("tab", name="Cerca").click()
        page.evaluate(give, [kind, base64.b64encode((PHOTOS / name).read_bytes()).decode()])
        page.get_by_role("tab", name="Dai un nome", selected=True).wait_for()
        page.locator("#name button.main").click()
        page.locator("#scores li").first.wait_for()
        expected = {"gatto.jpg": "gatto", "razzo.jpg": "un razzo"}[name]
        assert page.locator("#scores .row span").first.inner_text() == expected


def test_what_is_no_photograph_is_said(opened: Callable[..., Any], tmp_path: Path) -> None:
    page = opened(at="/#name")
    page.locator("#name button.main").click()
    assert page.locator("#name-status").inner_text() == "Scegli prima una fotografia."
    (tmp_path / "nota.png").write_text("non una foto")
    page.locator("#name input[type=file]").set_input_files(tmp_path / "nota.png")
    page.get_by_label("Etichette, una per riga").fill("gatto")
    page.locator("#name button.main").click()
    assert page.locator("#name-status").inner_text() == "Scrivi almeno due etichette."


def test_the_keyboard_alone_is_enough(opened: Callable[..., Any]) -> None:
    page = opened()
    page.get_by_role("tab", name="Cerca").wait_for()
    page.locator("#growing > *").first.wait_for(state="detached")
    page.keyboard.press("Tab")  # the language
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "tab-search"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-name"
    assert page.locator("#name").is_visible()
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.id") == "tab-where"
    page.keyboard.press("Home")
    page.keyboard.press("Tab")  # the panel
    page.keyboard.press("Tab")
    page.keyboard.type("un razzo")
    page.keyboard.press("Enter")
    page.locator("#results li").first.wait_for()
    assert names(page)[0] == "razzo.jpg"
    page.locator("#results .open").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.className") == "open"


def test_the_page_speaks_english_and_remembers_it(opened: Callable[..., Any]) -> None:
    page = opened(locale="en-GB")
    assert page.get_by_role("tab", name="Name it").is_visible()
    assert page.evaluate("document.documentElement.lang") == "en"
    page.get_by_role("button", name="Italiano").click()
    assert page.get_by_role("tab", name="Dai un nome").is_visible()
    page.reload()
    assert page.get_by_role("tab", name="Dai un nome").is_visible()
    other = set(page.evaluate("[...document.querySelectorAll('[data-t]')].map(e => e.textContent)"))
    assert "" not in other
    assert "undefined" not in other


def test_with_a_token_the_page_asks_for_it(browser: Any, tmp_path: Path, opened: Callable[..., Any]) -> None:
    with serving(tmp_path / "log.txt", "--token", TOKEN) as guarded:
        page = opened(address=guarded.address)
        page.get_by_label("Codice").fill("sbagliato")
        page.get_by_role("button", name="Entra").click()
        page.get_by_text("Il codice non è questo.").wait_for()
        page.get_by_label("Codice").fill(TOKEN)
        page.get_by_role("button", name="Entra").click()
        page.get_by_text("Nessuna cartella da cercare").wait_for()
        page.reload()
        page.get_by_role("tab", name="Cerca").wait_for()
        assert TOKEN not in page.evaluate("document.cookie + JSON.stringify(localStorage)")


def test_the_progress_of_a_growing_archive_is_shown(browser: Any, tmp_path: Path, opened: Callable[..., Any]) -> None:
    photos = tmp_path / "tante"
    photos.mkdir()
    for number in range(700):
        Image.new("RGB", (300, 300), (number % 256, number // 256, 90)).save(photos / f"{number}.png")
    with serving(tmp_path / "log.txt", photos) as growing:
        page = opened(address=growing.address)
        page.get_by_text("tante:").wait_for()
        bar = page.locator("progress")
        bar.wait_for()
        assert float(bar.get_attribute("max")) == 700
        page.get_by_role("progressbar", name="Si può già cercare").wait_for()
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_and_nothing_is_cut_off(opened: Callable[..., Any], size: str, scheme: str) -> None:
    package = importlib.util.find_spec("axe_playwright_python")
    if package is None or package.origin is None:
        pytest.skip("needs axe-core: pip install axe-playwright-python")
    (axe,) = Path(package.origin).parent.rglob("axe.min.js")
    page = opened(size, scheme=scheme)
    search(page, "un gatto")
    page.get_by_role("button", name="Meno: razzo.jpg").click()
    page.get_by_text("Date e altri filtri").click()
    for tab in ("search", "name", "where"):
        page.locator(f"#tab-{tab}").click()
        if tab != "search":
            page.locator(f"#{tab} input[type=file]").set_input_files(PHOTOS / "gatto.jpg")
            if tab == "where":
                page.locator("#sought").fill("il gatto")
            page.locator(f"#{tab} button.main").click()
            page.locator("#scores li" if tab == "name" else "#strength-field").first.wait_for()
        check(page, axe)
    page.locator("#tab-search").click()
    page.locator("#results .open").first.click()
    page.get_by_role("dialog").wait_for()
    check(page, axe)


def check(page: Any, axe: Path) -> None:
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(result => result.violations.map(v => [v.id, v.nodes.map(n => n.html)]))")
    assert found == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"
