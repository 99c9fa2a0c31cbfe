"""Make the pictures of the page in docs/pictures from the running page, and one of a sheet of results, in Chromium.

    python -m benchmarks.screenshots

The four photographs of examples/photos are the archive. $CHROMIUM names the browser, by default /usr/bin/chromium.
"""

import argparse
import io
import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import clipita
from benchmarks.tools.server import serving
from clipita.search.contact_sheet import contact_sheet

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "examples" / "photos"
SIZES = {"wide": (1100, 760), "narrow": (390, 780)}


def main() -> None:
    """Make all pictures, wide and narrow, light and dark."""
    parser = argparse.ArgumentParser(description="Make the pictures of the page.")
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "pictures", help="the folder of the pictures")
    into: Path = parser.parse_args().into
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        photos = Path(scratch) / "fotografie"
        shutil.copytree(PHOTOS, photos)
        with serving(photos) as (address, _), sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
            )
            for size in SIZES:
                for scheme in ("light", "dark"):
                    _shoot(browser, address, into, size, scheme)
            _shoot_sheet(browser, photos, Path(scratch) / "una tazza.html", into)
            browser.close()


def _shoot(browser: Browser, address: str, into: Path, size: str, scheme: str) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        locale="it-IT",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(address)
    page.get_by_label("Che cosa cerchi?").fill("una tazza di caffè")
    page.locator("#growing > *").first.wait_for(state="detached")
    page.get_by_role("button", name="Cerca", exact=True).click()
    page.locator("#results li").nth(3).wait_for()
    page.wait_for_load_state("networkidle")
    _save(page, into / f"cerca-{size}-{scheme}.webp")

    page.get_by_role("tab", name="Dai un nome").click()
    page.locator("#name input[type=file]").set_input_files(PHOTOS / "gatto.jpg")
    page.locator("#name button.main").click()
    page.wait_for_selector("#scores li")
    _save(page, into / f"nome-{size}-{scheme}.webp")

    page.get_by_role("tab", name="Dove").click()
    page.locator("#where input[type=file]").set_input_files(PHOTOS / "razzo.jpg")
    page.get_by_label("Che cosa cerchi nella fotografia?").fill("il razzo")
    page.locator("#where button.main").click()
    page.wait_for_selector("#strength-field:not([hidden])")
    _save(page, into / f"dove-{size}-{scheme}.webp")
    context.close()


def _shoot_sheet(browser: Browser, photos: Path, file: Path, into: Path) -> None:
    """Make the picture of what `clipita search --all --html FILE` writes."""
    query = "una tazza di caffè"
    index = clipita.Index.open(photos)
    file.write_text(contact_sheet(photos, query, index.search(query, show_all=True)), encoding="utf-8")
    page = browser.new_page(viewport={"width": 760, "height": 340})
    page.goto(file.as_uri())
    _save(page, into / "risultati.webp")
    page.close()


def _save(page: Page, path: Path) -> None:
    page.evaluate("document.activeElement.blur()")
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.save(path, quality=80, method=6)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
