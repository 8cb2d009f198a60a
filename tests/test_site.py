"""The site can be read from the disk: every link leads somewhere, and no page asks the network for anything."""
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("object", "data"), ("link", "href")}


class Page(HTMLParser):
    "The anchors of a page, the links that a reader can click, and the files that the browser loads by itself."
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key in ("id", "name"): self.ids.add(value)
            if (tag, key) == ("a", "href"): self.links.append(value)
            if (tag, key) in LOADS: self.loads.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory, root):
    "The folder SEMIML_SITE, where somebody has just made the site; else it is made here."
    if "SEMIML_SITE" in os.environ: return Path(os.environ["SEMIML_SITE"])
    out = tmp_path_factory.mktemp("site") / "docs"
    run = subprocess.run([sys.executable, root / "tools" / "docs.py", "site", "--out", out], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {p: Page(p) for p in sorted(site.rglob("*.html"))}


def test_every_notebook_has_its_page(root, pages):
    assert len(pages) == len([p for p in (root / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts and not p.name.startswith("_")])


def test_links_lead_somewhere(pages):
    dead = []
    for path, page in pages.items():
        for link in page.links + page.loads:
            url = urlsplit(link)
            if url.scheme or url.netloc: continue
            target = Path(os.path.normpath(path.parent / unquote(url.path))) if url.path else path
            if not target.exists(): dead.append(f"{path.name}: {link}")
            elif url.fragment and target in pages and unquote(url.fragment) not in pages[target].ids: dead.append(f"{path.name}: {link}")
    assert not dead


def test_nothing_is_loaded_from_elsewhere(site, pages):
    outside = [f"{path.name}: {o}" for path, page in pages.items() for o in page.loads if re.match(r"(https?:)?//", o)]
    for css in [*site.rglob("*.css"), *pages]:
        outside += [f"{css.name}: {o}" for o in re.findall(r"@import[^;]*//[^;]*|url\(\s*['\"]?(?:https?:)?//[^)]*", css.read_text())]
    assert not outside


def test_pages_load_quietly(browser, pages):
    view = browser.new_page()
    noise = []
    view.on("request", lambda r: noise.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    view.on("console", lambda m: noise.append(f"{m.type}: {m.text}") if m.type == "error" else None)
    view.on("pageerror", lambda e: noise.append(str(e)))
    for path in pages:
        view.goto(path.as_uri(), wait_until="load")
        view.evaluate("document.fonts.ready.then(() => true)")
        for width in (1280, 390):
            view.set_viewport_size({"width": width, "height": 900})
            if view.evaluate("document.documentElement.scrollWidth") > width: noise.append(f"{path.name} is wider than {width} pixels")
    view.close()
    assert not noise


def test_search_works_from_the_disk(browser, site):
    view = browser.new_page(viewport={"width": 1280, "height": 900})
    view.goto((site / "index.html").as_uri())
    view.fill(".smalldocs-search input", "BadInput")
    view.locator(".search-result[href*='api/core.html']").first.click()
    assert view.url.startswith((site / "api" / "core.html").as_uri())
    view.close()
