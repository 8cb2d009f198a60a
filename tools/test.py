"""Everything that can fail, with counts at the end: each notebook is a test, and `tests/` holds what a cell cannot show.

Notebooks, and then the files of `tests/`, run two at a time at scale `ci` with one thread each, so that they do not fight for the cores.
Beside the notebooks the site is made, once, into `_docs/`; some tests read it.
"""
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
env = dict(os.environ, SEMIML_SCALE="ci", OMP_NUM_THREADS="1", MPLBACKEND="agg", PYTHONUNBUFFERED="1",
           PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")
t0 = time.time()

said = tempfile.TemporaryFile("w+")
site = subprocess.Popen([sys.executable, ROOT / "tools" / "docs.py", "site"], cwd=ROOT, env=env, text=True, stdout=said, stderr=subprocess.STDOUT)

run = subprocess.Popen([BIN / "nbdev_test", "--n_workers", "2", "--timing", "--do_print"], cwd=ROOT, env=env, text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
done, failed = 0, 0
for line in run.stdout:
    done += line.startswith("- Completed ")
    failed += bool(re.fullmatch(r"\t\S+\.ipynb\n", line))  # the list of failures at the end
    print(line.replace(f"{ROOT}{os.sep}", ""), end="", flush=True)
notebooks_failed = run.wait() != 0

site_failed = site.wait() != 0
said.seek(0)
print(said.read())
if not site_failed: env["SEMIML_SITE"] = str(ROOT / "_docs")

with tempfile.TemporaryDirectory() as tmp:
    xml = Path(tmp) / "pytest.xml"
    tests_failed = subprocess.run([sys.executable, "-m", "pytest", "tests", "-n", "2", "--dist", "loadfile", "--durations", "8", "--junitxml", xml],
                                  cwd=ROOT, env=env).returncode != 0
    n = {k: int(v) for k, v in ET.parse(xml).getroot().find("testsuite").attrib.items() if v.isdigit()} if xml.exists() else {}

bad = n.get("failures", 0) + n.get("errors", 0)
print(f"\nnotebooks: {done - failed} passed, {failed} failed"
      f"\nsite: {'failed' if site_failed else 'made'}"
      f"\npytest: {n.get('tests', 0) - bad - n.get('skipped', 0)} passed, {n.get('skipped', 0)} skipped, {bad} failed"
      f"\ntime: {time.time() - t0:.0f} s")
sys.exit(notebooks_failed or site_failed or tests_failed)
