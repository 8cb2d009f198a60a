"""What several tests need: the project's folder, a browser, and the rule that nothing is skipped in silence."""
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync").split()


def missing(what: str):
    "Skip and say why; where everything must be there (`SEMIML_REQUIRE=1`) fail instead."
    (pytest.fail if os.environ.get("SEMIML_REQUIRE") == "1" else pytest.skip)(what)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def browser():
    "The Chromium (or Chrome) of this machine, without a window."
    names = ("chromium", "chromium-browser", "google-chrome")
    exe = next((p for p in map(shutil.which, names) if p), None)
    if exe is None: missing("no Chromium on this machine: install it (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=exe, args=FLAGS)
        yield b
        b.close()


@pytest.fixture(scope="session")
def real_data() -> Path:
    "The folder with the real images, which are no part of the project."
    folder = Path(os.environ.get("SEMIML_DATA") or "nowhere")
    if not (folder / "prefab_soi").is_dir(): missing("no real images: set SEMIML_DATA to the folder that holds prefab_soi")
    return folder
