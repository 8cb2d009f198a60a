"""The project hangs together: one place for every pin, generated files in step, and a wheel that works elsewhere."""
import configparser
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="module")
def settings(root):
    cfg = configparser.ConfigParser(delimiters=["="])
    cfg.read(root / "settings.ini", encoding="utf-8")
    return cfg["DEFAULT"]


@pytest.fixture(scope="module")
def notebooks(root):
    return [p for p in (root / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]


def tracked(root):
    "The project's files: what git knows or would take."
    out = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, text=True)
    if out.returncode: pytest.skip("not a git checkout, so that the project's files cannot be told from others")
    return [root / o for o in out.stdout.split("\0") if o and (root / o).is_file()]


def test_conda_pins_are_those_of_settings(root, settings):
    deps = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    pip = next(o["pip"] for o in deps if isinstance(o, dict))
    assert sorted(pip) == sorted(settings["requirements"].split() + ["-e .[dev]"])


def test_site_is_called_what_the_project_is_called(root, settings):
    web = yaml.safe_load((root / "_quarto.yml").read_text())["website"]
    assert (web["title"], web["description"]) == (settings["title"], settings["description"])


def test_readme_is_the_index(root, tmp_path):
    subprocess.run([sys.executable, root / "tools" / "docs.py", "readme", "--out", tmp_path / "README.md"], cwd=root, check=True)
    assert (root / "README.md").read_text() == (tmp_path / "README.md").read_text(), "run `make export`"


def test_modules_are_short(root):
    long = {p.name: n for p in (root / "semiml").rglob("*.py")
            if p.name != "_modidx.py" and (n := len(p.read_text().splitlines())) > 300}
    assert not long


def test_notebooks_are_light(notebooks):
    heavy = {p.name: p.stat().st_size for p in notebooks if p.stat().st_size > 1_000_000}
    assert not heavy
    assert not [p.name for p in notebooks if "widgets" in json.loads(p.read_text())["metadata"]], "run tools/run_notebook.py on them"


def test_no_file_speaks_of_a_machine(root):
    words = re.compile(r"/(?:root|home|work|Users)/\w|/tmp/tmp\w|" + r"py" r"pi\.org|python" r"hosted\.|download\.py" r"torch\.|anaconda" r"\.org")
    found = []
    for path in tracked(root):
        try: text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError: continue
        found += [f"{path.relative_to(root)}: {m[0]}" for m in words.finditer(text)]
    assert not found


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    "A wheel built from a copy of the sources, so that the build leaves nothing behind in the project."
    src, out = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("wheel")
    for path in tracked(root):
        to = src / path.relative_to(root)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())
    run = subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, src], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return next(out.glob("*.whl"))


def test_wheel_holds_the_library_and_nothing_else(root, wheel):
    with zipfile.ZipFile(wheel) as z: names = set(z.namelist())
    library = {str(p.relative_to(root)) for p in (root / "semiml").rglob("*.py")}
    assert {o for o in names if ".dist-info/" not in o} == library
    assert any(re.fullmatch(r"semiml-[^/]+\.dist-info/(licenses/)?LICENSE", o) for o in names)


def test_wheel_works_outside_the_tree(wheel, tmp_path):
    site, run = tmp_path / "site", tmp_path / "run"
    run.mkdir()
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", site, wheel],
                   check=True)
    env = dict(os.environ, PYTHONPATH=str(site))
    code = ("import sys, semiml.cli; print(semiml.cli.__file__)\ntry: semiml.cli.main(['--help'])\n"
            "except SystemExit as e: assert not e.code\nassert 'torch' not in sys.modules, 'the help must not wait for PyTorch'")
    out = subprocess.run([sys.executable, "-c", code], cwd=run, env=env, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert Path(out.stdout.splitlines()[0]).is_relative_to(site)
    command = subprocess.run([site / "bin" / "semiml", "--help"], cwd=run, env=env, capture_output=True, text=True)
    assert command.returncode == 0 and "usage: semiml" in command.stdout, command.stderr
