"""The documentation's site is read from a disk: it fits wide and narrow screens, asks no network, and finds things."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from support.chromium import chromium, needs_chromium
from support.reference import mkdocs, playwright  # noqa: F401 - skips the file where one is missing

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_is_wider_than_the_screen_lacks_a_picture_or_asks_a_network(
    site: Path, browser: Any, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    pages = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    assert len(pages) > 30
    for path in pages:
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('img').forEach(image => (image.loading = 'eager'))")
        page.wait_for_function("[...document.images].every(image => image.complete)")
        assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.src)") == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.close()
    assert [address for address in asked if not address.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize(
    ("start", "words", "found"),
    [
        ("index.html", "parole chiave", "guide/label.html"),
        ("guide/serve.html", "calibrazione", "concepts.html"),
        ("en/start.html", "fingerprint", "en/concepts.html"),
    ],
)
def test_the_search_finds_pages_of_both_languages(site: Path, browser: Any, start: str, words: str, found: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((site / start).as_uri())
    page.locator("input[name=query]").click()
    page.keyboard.type(words)
    page.locator(".md-search-result__link").first.wait_for()
    links = page.locator(".md-search-result__link").evaluate_all("links => links.map(link => link.pathname)")
    page.close()
    assert (site / found).as_posix() in links
