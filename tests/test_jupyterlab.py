"""The first tutorial as a reader meets it: opened in JupyterLab, run from top to bottom, and its slider moved."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

NOTEBOOK = "01_fifteen_images.ipynb"
TOKEN = "semiml-test"
LINE = re.compile(r"showing generated image (\d+) of (\d+): nearest training image (\S+), similarity (\S+)")
# Every cell in the page (JupyterLab leaves out what is scrolled away), and no question about news from the network.
LAB_SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none"},
                "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def lab(root, tmp_path):
    "The address of a JupyterLab that has only a copy of the tutorial, and its own folders for everything that it writes."
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(root / "nbs" / "tutorials" / NOTEBOOK, work)
    for name, values in LAB_SETTINGS.items():
        plugin = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        plugin.parent.mkdir(parents=True, exist_ok=True)
        plugin.write_text(json.dumps(values))
    env = dict(os.environ, SEMIML_SCALE="ci", OMP_NUM_THREADS="1", JUPYTER_PREFER_ENV_PATH="1")  # two threads wait for each other on a busy machine
    env |= {f"JUPYTER_{o.upper()}_DIR": str(tmp_path / o) for o in ("config", "data", "runtime")} | {"IPYTHONDIR": str(tmp_path / "ipython")}
    url, log = f"http://127.0.0.1:{free_port()}", tmp_path / "lab.log"
    with open(log, "w") as f:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={url.rsplit(':')[-1]}",
             "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={work}",
             f"--LabApp.user_settings_dir={tmp_path / 'settings'}", f"--LabApp.workspaces_dir={tmp_path / 'workspaces'}",
             "--LabApp.extension_manager=readonly"], env=env, cwd=work, stdout=f, stderr=subprocess.STDOUT)
    try:
        for _ in range(240):
            assert server.poll() is None, log.read_text()
            try: urllib.request.urlopen(f"{url}/api/status?token={TOKEN}", timeout=5).close(); break
            except OSError: time.sleep(0.25)
        else: pytest.fail("JupyterLab did not answer within a minute:\n" + log.read_text())
        yield url, work / NOTEBOOK
    finally:
        server.terminate()
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill()


def choose(page, menu, item):
    page.locator(".lm-MenuBar-item", has_text=re.compile(f"^{menu}$")).click()
    page.locator(".lm-Menu-item", has_text=re.compile(f"^{item}")).first.click()


def shown(output):
    "What the slider's callback printed, once it has: (image, of, nearest, similarity)."
    output.get_by_text(LINE).first.wait_for(timeout=60_000)
    return LINE.search(output.inner_text()).groups()


def test_tutorial_runs_and_its_slider_answers(browser, lab, tmp_path):
    url, path = lab
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    try:
        page.goto(f"{url}/lab/tree/{NOTEBOOK}?reset&token={TOKEN}")
        idle = page.locator("#jp-main-statusbar").get_by_text(re.compile(r"\| Idle$"))
        idle.wait_for(timeout=60_000)

        page.locator(".jp-CodeCell").first.wait_for()
        choose(page, "Run", "Run All Cells")
        # A cell that fails stops the run, so the last cell gets its number exactly if all went well.
        error = page.locator("[data-mime-type$='stderr']", has_text="Traceback (most recent call last)")
        last = page.locator(".jp-CodeCell", has=page.locator(".cm-content", has_text=re.compile(r"\S"))).last
        last.locator(".jp-InputPrompt", has_text=re.compile(r"\[\d+\]")).or_(error).first.wait_for(timeout=240_000)
        idle.wait_for(timeout=60_000)
        assert error.count() == 0, error.first.inner_text()

        slider = page.locator(".widget-slider", has=page.locator(".widget-label", has_text=re.compile("^image$"))).first
        output = page.locator(".jp-OutputArea", has=slider).first
        image, of, nearest, similarity = shown(output)
        slider.locator(".noUi-handle").focus()
        slider.locator(".noUi-handle").press("ArrowRight")
        output.get_by_text(f"showing generated image {int(image) + 1} of {of}:").wait_for(timeout=60_000)
        moved = shown(output)
        assert moved[0] == str(int(image) + 1) and moved[2:] != (nearest, similarity)

        choose(page, "File", "Save Notebook")
        page.wait_for_function("() => !document.querySelector('.lm-TabBar-tab.jp-mod-dirty')", timeout=30_000)
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        assert not [o for c in cells for o in c["outputs"] if o["output_type"] == "error"]
    except Exception:
        page.screenshot(path=tmp_path / "lab.png")
        print("screenshot:", tmp_path / "lab.png")
        raise
    finally: page.close()
