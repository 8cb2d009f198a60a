"""`make demo` at scale ci: the lot to its page, and the diffusion model on the real images where they are, and without images or a network."""
import os
import subprocess
import sys
from pathlib import Path

import nbformat

DEMO = Path(__file__).parents[1] / "tools" / "demo.py"


def demo(out, part, page, **env):
    r = subprocess.run([sys.executable, str(DEMO), "--scale", "ci", "--only", part, "--out", str(out)], capture_output=True, text=True, env=os.environ | env)
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout, (out / page).read_text()


def test_from_a_lot_to_a_page(tmp_path):
    said, page = demo(tmp_path, "lot", "report.html", OMP_NUM_THREADS="1")
    assert "$ semiml drift check" in said and "$ semiml gate check" in said and "clicks an object" in said
    assert all(f"<h2>{h}" in page for h in ("In short", "Has the tool changed?", "Masks", "What the fins measure", "Where the edges lie", "Defects",
                                            "The gate", "How it was made"))
    assert "SIMULATED" in page and page.count("data:image/png;base64") == 9 and "http" not in page
    nb = nbformat.read(tmp_path / "06_lot_to_report.ipynb", as_version=4)  # the notebook lies beside it, with its outputs
    assert all(c.execution_count for c in nb.cells if c.cell_type == "code")


def test_on_the_real_images(tmp_path, real_data):
    said, page = demo(tmp_path, "synthetic", "synthetic.html", SEMIML_DATA=str(real_data))
    assert "MS-SSIM to held-out images" in said and "simulated" not in said
    assert "prefab_soi" in page and "random_lpass_0.03_1" in page and page.count("data:image/png;base64") >= 4
    assert "http" not in page


def test_without_images_and_network_it_says_so_in_one_line(tmp_path):
    nowhere = "http://127.0.0.1:9"  # nothing listens there
    said, page = demo(tmp_path, "synthetic", "synthetic.html", SEMIML_DATA="", HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), HTTPS_PROXY=nowhere,
                      https_proxy=nowhere)
    assert [l for l in said.splitlines() if l.startswith("No real images")] == [
        "No real images (SEMIML_DATA is not set and the download failed): using simulated FinFET TEM images instead."]
    assert "SIMULATED images" in page
