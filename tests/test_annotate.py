"""The annotation tool as a person meets it: in JupyterLab, in a real browser, with mouse and keys; then what is on disk against the truth."""
import json
import re
from urllib.parse import urlsplit

import numpy as np
import pytest
from scipy import ndimage as nd
from test_jupyterlab import TOKEN, choose, lab  # noqa: F401 (lab is a fixture)

from semiml.micrograph import read_mask

NOTEBOOK, SHAPE, ZOOM = "annotate.ipynb", (96, 128), 5  # 560 px of the window hold five times 96
CELL = '''
import numpy as np
from scipy import ndimage as nd
from skimage.filters import threshold_otsu
from skimage.segmentation import flood
from semiml.sesami.annotate import Annotator

class Flood:
    "Regions of nearly equal gray; inside a box what differs from its rim."
    def set_image(self, image): self.a = nd.gaussian_filter(image.astype(float), 1)
    def predict(self, prompt):
        out = np.zeros(self.a.shape, bool) if prompt.mask is None else prompt.mask.copy()
        if prompt.box is not None:
            x0, y0, x1, y1 = np.round(prompt.box + .5).astype(int); part = self.a[y0:y1, x0:x1]
            out[y0:y1, x0:x1] = (part > threshold_otsu(part)) != (part[0] > threshold_otsu(part)).any()
        for (x, y), label in zip(prompt.points, prompt.labels):
            grown = flood(self.a, (round(y), round(x)), tolerance=60)
            out = out | grown if label else out & ~grown
        return out

tool = Annotator(dict(np.load("images.npz")), Flood(), "out", classes=("background", "metal", "oxide"), n_superpixels=250)
tool
'''


@pytest.fixture(scope="module")
def truth():
    "Two labelled scenes: a disc, a rectangle and a bar on a background; a ring."
    y, x = np.indices(SHAPE)
    a, b = np.zeros((2, *SHAPE), np.uint8)
    a[np.hypot(x - 35, y - 35) < 20] = 1
    a[20:60, 75:110] = 2
    a[75:87, 10:118] = 1
    b[np.hypot(x - 64, y - 48) < 34] = 2
    b[np.hypot(x - 64, y - 48) < 18] = 0
    return dict(a=a, b=b)


class Tool:
    "The tool on the page: places in px of the image."
    def __init__(self, page):
        self.page, self.root = page, page.locator(".semiml-annotate")
        self.sheet = self.root.locator("svg")

    def at(self, x, y): return dict(x=(x + .5) * ZOOM, y=(y + .5) * ZOOM)

    def click(self, x, y, **kw): self.sheet.click(position=self.at(x, y), **kw)

    def drag(self, *points):
        box, mouse = self.sheet.bounding_box(), self.page.mouse
        for i, p in enumerate(points):
            q = self.at(*p)
            mouse.move(box["x"] + q["x"], box["y"] + q["y"], steps=1 if i == 0 else 6)
            if i == 0: mouse.down()
        mouse.up()

    def button(self, name): self.root.get_by_role("button", name=re.compile(f"^{re.escape(name)}")).click()

    def says(self, pattern):
        "The status line, once it says so and is no longer at work."
        self.page.wait_for_function("""([e, p]) => new RegExp(p).test(e.textContent) && !e.textContent.includes('working')""",
                                    arg=[self.root.locator(".status").element_handle(), pattern], timeout=20_000)
        return self.root.locator(".status").inner_text()

    def px(self, clicks): return int(re.search(r"mask (\d+) px", self.says(rf"mask \d+ px, {clicks} clicks?,"))[1])


@pytest.fixture
def tool(browser, lab, truth, tmp_path):  # noqa: F811
    url, path = lab
    path.unlink()
    rng, gray = np.random.default_rng(0), np.array([60, 150, 220])
    np.savez(path.parent / "images.npz", **{k: (nd.gaussian_filter(gray[t] + 0., .6) + rng.normal(0, 6, SHAPE)).astype(np.float32) for k, t in truth.items()})
    cell = dict(cell_type="code", id="tool", metadata={}, execution_count=None, outputs=[], source=CELL)
    kernel = dict(name="python3", display_name="python3", language="python")
    (path.parent / NOTEBOOK).write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))
    page = browser.new_page(viewport={"width": 1400, "height": 1300})
    page.errors, page.strangers = [], []
    page.on("pageerror", lambda e: page.errors.append(str(e)))
    page.on("console", lambda m: m.type == "error" and page.errors.append(m.text))
    page.on("request", lambda r: r.url.startswith(("blob:", "data:")) or urlsplit(r.url).hostname == "127.0.0.1" or page.strangers.append(r.url))
    try:
        page.goto(f"{url}/lab/tree/{NOTEBOOK}?reset&token={TOKEN}")
        page.locator("#jp-main-statusbar").get_by_text(re.compile(r"\| Idle$")).wait_for(timeout=60_000)
        choose(page, "Run", "Run All Cells")
        error = page.locator("[data-mime-type$='stderr']", has_text="Traceback (most recent call last)")
        page.locator(".semiml-annotate .status", has_text="image 1 of 2").or_(error).first.wait_for(timeout=60_000)
        assert error.count() == 0, error.first.inner_text()
        page.out = path.parent / "out"
        yield Tool(page)
    finally:
        page.screenshot(path=tmp_path / "lab.png")
        print("screenshot:", tmp_path / "lab.png")  # shown if the test fails
        page.close()


def iou(a, b): return (a & b).sum() / (a | b).sum()


def test_a_person_labels_two_images(tool, truth):
    page, a, b = tool.page, truth["a"], truth["b"]
    tool.says("image 1 of 2: a .* mask 0 px, 0 clicks, class background")
    assert round(tool.sheet.bounding_box()["width"]) == ZOOM * SHAPE[1]

    # clicks, in and out; undo by key; JupyterLab must not take the keys for its own (x cuts a cell)
    tool.click(35, 35)
    disc = tool.px(1)
    assert abs(disc / (a[:60, :60] == 1).sum() - 1) < .1
    tool.click(90, 40)
    assert tool.px(2) > disc + 1000
    tool.click(90, 45, modifiers=["Shift"])
    assert abs(tool.px(3) - disc) < 50, "a click out takes the rectangle away"
    tool.click(5, 5, button="right")
    tool.px(4)
    for n in (3, 2, 1): page.keyboard.press("z"); tool.px(n)
    assert tool.px(1) == disc
    page.keyboard.press("0")
    tool.says("class unlabelled")
    page.keyboard.press("2")
    page.keyboard.press("4")  # there is no fourth class
    tool.says("class metal")
    page.keyboard.press("Enter")
    tool.says("mask 0 px, 0 clicks.*saved out/masks/a.png")
    assert page.locator(".jp-CodeCell").count() == 1

    # a box around the rectangle
    tool.button("Box")
    tool.drag((68, 12), (116, 66))
    tool.px(1)
    tool.button("3 oxide")
    tool.says("class oxide")
    tool.button("Accept")
    tool.says("mask 0 px, 0 clicks.*saved out/masks/a.png")

    # superpixels along the bar, the brush for what they miss, one undo for a whole stroke
    tool.button("Superpixels")
    tool.drag((14, 78), (60, 84), (114, 78))
    first = tool.px(1)
    tool.drag((14, 68), (60, 90), (114, 68))
    assert tool.px(2) > first + 100
    tool.button("Undo")
    assert tool.px(1) == first
    page.keyboard.press("r")
    tool.drag((16, 81), (112, 81))
    assert tool.px(2) >= first
    page.keyboard.down("Shift")
    tool.drag((12, 66), (116, 66))
    page.keyboard.up("Shift")
    tool.says("mask")
    page.keyboard.press("2")
    tool.says("class metal")
    page.keyboard.press("Enter")
    tool.says("mask 0 px, 0 clicks.*saved")

    # one decision too many, taken back; the other image
    page.keyboard.press("c")
    tool.click(5, 5)
    tool.px(1)
    page.keyboard.press("Enter")
    tool.says("mask 0 px, 0 clicks.*saved")
    page.keyboard.press("z")
    tool.says("undone")
    tool.button("Reject")
    tool.says("mask 0 px, 0 clicks")
    tool.button("Next")
    tool.says("image 2 of 2: b .*mask 0 px")
    tool.click(64, 20)
    tool.px(1)
    page.keyboard.press("3")
    tool.says("class oxide")
    tool.button("Accept")
    tool.says("saved out/masks/b.png")
    tool.button("Save")
    tool.says("saved out/masks/b.png")

    a_saved, b_saved = (read_mask(page.out / "masks" / f"{n}.png", 3) for n in "ab")
    assert iou(a_saved[:65, :65] == 1, a[:65, :65] == 1) > .9 and iou(a_saved == 2, a == 2) > .9 and iou(b_saved == 2, b == 2) > .9
    assert iou(a_saved[68:] == 1, a[68:] == 1) > .6, "superpixels and a brush by a shaky hand"
    assert set(np.unique(a_saved)) == {1, 2, 255} and set(np.unique(b_saved)) == {2, 255}
    log = [json.loads(line) for line in (page.out / "log.jsonl").read_text().splitlines()]
    assert [(r["image"], r["action"], r.get("class"), r.get("clicks")) for r in log] == [
        ("a", "drawn", 1, 1), ("a", "drawn", 2, 1), ("a", "drawn", 1, log[2]["clicks"]), ("a", "drawn", 1, 1), ("a", "undone", None, None),
        ("b", "drawn", 2, 1)]
    assert log[0]["px"] == (a_saved[:65, :65] == 1).sum() == disc and log[1]["px"] == (a_saved == 2).sum()
    assert json.loads((page.out / "dataset.json").read_text())["classes"] == ["background", "metal", "oxide"]
    assert not page.strangers and not page.errors
