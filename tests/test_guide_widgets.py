"""The guide to the artefacts as a reader meets it: opened in JupyterLab, run from top to bottom, and two of its sliders moved."""
import re
import shutil

import pytest
from test_jupyterlab import TOKEN, choose, lab  # noqa: F401 (lab is a fixture)

NOTEBOOK = "01_artefacts.ipynb"
DOSE = re.compile(r"dose (\d+) e/px: variance/mean ([\d.]+), noise of Si ([\d.]+) %")
JITTER = re.compile(r"jitter ([\d.]+) px: LER ([\d.]+) nm, LWR ([\d.]+) nm")


@pytest.fixture
def page(root, browser, lab, tmp_path):  # noqa: F811
    "The guide in JupyterLab, after Run All Cells without an error."
    url, path = lab
    shutil.copy(root / "nbs" / "guide" / NOTEBOOK, path.parent)
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    try:
        page.goto(f"{url}/lab/tree/{NOTEBOOK}?reset&token={TOKEN}")
        idle = page.locator("#jp-main-statusbar").get_by_text(re.compile(r"\| Idle$"))
        idle.wait_for(timeout=60_000)
        page.locator(".jp-CodeCell").first.wait_for()
        assert page.locator(".widget-slider").count() == 0, "the saved notebook holds no widgets: those below belong to this run"
        choose(page, "Run", "Run All Cells")
        # A cell that fails stops the run, so the last cell gets its number exactly if all went well.
        error = page.locator("[data-mime-type$='stderr']", has_text="Traceback (most recent call last)")
        page.locator(".widget-slider .widget-label", has_text=re.compile("^flyback$")).or_(error).first.wait_for(timeout=240_000)
        last = page.locator(".jp-CodeCell", has=page.locator(".cm-content", has_text=re.compile(r"\S"))).last
        last.locator(".jp-InputPrompt", has_text=re.compile(r"\[\d+\]")).or_(error).first.wait_for(timeout=120_000)
        idle.wait_for(timeout=120_000)
        assert error.count() == 0, error.first.inner_text()
        yield page
    except Exception:
        page.screenshot(path=tmp_path / "lab.png")
        print("screenshot:", tmp_path / "lab.png")
        raise
    finally: page.close()


def move(page, label, line, key):
    "Press `key` on the slider `label`; the numbers in the text below it before and after, once the picture has changed as well."
    slider = page.locator(".widget-slider", has=page.locator(".widget-label", has_text=re.compile(f"^{label}$"))).first
    box = page.locator(".widget-vbox", has=slider).first
    box.get_by_text(line).first.wait_for(timeout=60_000)
    before, picture = box.inner_text(), box.locator("img").first
    drawn = picture.get_attribute("src")
    slider.locator(".noUi-handle").focus()
    slider.locator(".noUi-handle").press(key)
    page.wait_for_function("([img, old]) => img.src !== old && img.complete && img.naturalWidth > 600", arg=[picture.element_handle(), drawn])
    return [tuple(map(float, line.search(o).groups())) for o in (before, box.inner_text())]


def test_guide_runs_and_its_sliders_answer(page):
    (e0, fano0, noise0), (e1, fano1, noise1) = move(page, "dose", DOSE, "End")
    assert e1 > 5 * e0 and max(abs(fano0 - 1), abs(fano1 - 1)) < 4 * (2 / 2560) ** .5, "Poisson at any dose: four sampling errors over 2560 pixels"
    assert abs(noise1 / noise0 / (e0 / e1) ** .5 - 1) < .1, "the relative noise falls as the square root of the dose"
    (px0, ler0, lwr0), (px1, ler1, lwr1) = move(page, "jitter", JITTER, "End")
    assert px1 > px0 and ler1 > 1.5 * ler0 and abs(lwr1 / lwr0 - 1) < .1, "jitter moves both edges of a line together"
    (px2, ler2, _), _ = move(page, "jitter", JITTER, "ArrowLeft")
    assert (px2, ler2) == (px1, ler1), "the first line is what the slider said last"
