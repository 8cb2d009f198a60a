"""The project hangs together: one place for every pin, generated files in step, and a wheel that works elsewhere."""
import ast
import configparser
import csv
import json
import os
import re
import subprocess
import sys
import tarfile
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
    return [p for p in (root / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts and not p.name.startswith("_")]


def tracked(root):
    "The project's files: what git knows or would take."
    out = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, text=True)
    if out.returncode: pytest.skip("not a git checkout, so that the project's files cannot be told from others")
    return [root / o for o in out.stdout.split("\0") if o and (root / o).is_file()]


def test_conda_pins_are_those_of_settings(root, settings):
    deps = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    pip = next(o["pip"] for o in deps if isinstance(o, dict))
    assert sorted(pip) == sorted(settings["requirements"].split() + ["-e .[dev]"])


def test_licences_are_known_and_none_binds_the_library(root, settings, tmp_path):
    run = subprocess.run([sys.executable, root / "tools" / "licences.py", "--out", tmp_path / "now.csv"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    now, page = (list(csv.DictReader(open(p, encoding="utf-8", newline=""))) for p in (tmp_path / "now.csv", root / "nbs" / "results" / "licences.csv"))
    assert {"torch": "semiml", "rosettasciio": "[formats], [dev]"}.items() <= {r["package"]: r["needed_by"] for r in now}.items()
    name = lambda o: re.sub("[-_.]+", "-", re.match(r"[\w.-]+", o)[0]).lower()
    wanted = {name(o) for k, v in settings.items() if k.endswith("requirements") for o in v.split()}
    assert not wanted - {name(r["package"]) for r in page}, "run python tools/licences.py --out nbs/results/licences.csv, then the page"


def test_licences_notice_a_hard_copyleft_dependency(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "tools")
    from licences import table
    rows, wrong = table(dict(requirements="rosettasciio packaging", dev_requirements="numpy"))
    assert len(wrong) == 1 and "rosettasciio: is under GPL-3.0-or-later" in wrong[0]
    assert {r["package"]: r["needed_by"] for r in rows}["packaging"] == "semiml"
    assert table(dict(requirements="packaging", formats_requirements="rosettasciio"))[1] == []


def test_site_is_called_what_the_project_is_called(root, settings):
    web = yaml.safe_load((root / "_quarto.yml").read_text())["website"]
    assert (web["title"], web["description"]) == (settings["title"], settings["description"])


def test_citation_is_that_of_this_version(root, settings):
    cff = yaml.safe_load((root / "CITATION.cff").read_text())
    assert (cff["cff-version"], cff["title"], cff["version"]) == ("1.2.0", settings["title"], settings["version"])
    assert cff["message"] and cff["authors"] == [{"name": settings["author"]}]
    assert cff["license"] == "Apache-2.0" and settings["license"] == "apache2"


def test_extras_are_those_that_the_text_names(root, settings):
    extras = {k.removesuffix("_requirements") for k in settings if k.endswith("_requirements")}
    files = [*(root / "semiml").rglob("*.py"), *(root / "nbs").rglob("*.ipynb"), *root.glob("*.md"), root / "Makefile"]
    named = {(p.name, e) for p in files for m in re.findall(r"(?:semiml|\.)\[([a-z,]+)\]", p.read_text()) for e in m.split(",")}
    assert named and not {o for o in named if o[1] not in extras}
    dev = settings["dev_requirements"].split()
    assert all(o in dev for e in extras - {"dev"} for o in settings[f"{e}_requirements"].split()), "the tests need every extra"


def test_gpu_job_runs_by_hand_and_the_other_without_a_gpu(root):
    gpu, cpu = (yaml.safe_load((root / ".github" / "workflows" / f"{k}.yml").read_text()) for k in ("gpu", "test"))
    assert list(gpu[True]) == ["workflow_dispatch"]  # YAML reads `on` as true
    job, other = gpu["jobs"]["gpu"], cpu["jobs"]["test"]
    assert job["runs-on"] == ["self-hosted", "gpu"] and job["env"]["SEMIML_SCALE"] == "paper" and other["runs-on"] == "ubuntu-latest"
    runs = [s["run"] for s in job["steps"] if "run" in s]
    notebooks = next(r for r in runs if "tools/run_notebook.py" in r).split()[2:]
    assert notebooks and all(any(root.glob(g)) for g in notebooks) and runs.index("make docs") == len(runs) - 1
    assert "_docs" in job["steps"][-1]["with"]["path"]
    assert not [s for s in other["steps"] if "run_notebook" in s.get("run", "") or "SEMIML_SCALE" in str(s)]  # the saved outputs are shown


def test_lab_registers_a_kernel_of_this_environment(root, tmp_path):
    recipe = subprocess.run(["make", "--dry-run", "--always-make", "lab"], cwd=root, capture_output=True, text=True).stdout
    install = next(l for l in recipe.splitlines() if "ipykernel install" in l).split()
    assert install[install.index("--prefix") + 1] == ".venv"
    subprocess.run([sys.executable, *install[1:install.index("--prefix")], "--prefix", tmp_path, *install[install.index("--prefix") + 2:]],
                   check=True, capture_output=True)
    kernel = json.loads((tmp_path / "share/jupyter/kernels/semiml/kernel.json").read_text())
    assert kernel["display_name"] == "semiml" and Path(kernel["argv"][0]) == Path(sys.executable)


def test_readme_is_the_index(root, tmp_path):
    subprocess.run([sys.executable, root / "tools" / "docs.py", "readme", "--out", tmp_path / "README.md"], cwd=root, check=True)
    assert (root / "README.md").read_text() == (tmp_path / "README.md").read_text(), "run `make export`"


def test_modules_are_short(root):
    long = {p.name: n for p in (root / "semiml").rglob("*.py")
            if p.name != "_modidx.py" and (n := len(p.read_text().splitlines())) > 300}
    assert not long


def test_what_is_public_says_what_it_does(root):
    silent = []
    for p in sorted((root / "semiml").rglob("*.py")):
        tree = ast.parse(p.read_text())
        public = next((ast.literal_eval(o.value) for o in tree.body if isinstance(o, ast.Assign) and getattr(o.targets[0], "id", "") == "__all__"), [])
        silent += [f"{p.relative_to(root)}: {o.name}" for o in tree.body if isinstance(o, ast.FunctionDef | ast.ClassDef) and o.name in public
                   and not ast.get_docstring(o)]
    assert not silent


def test_notebooks_are_light(notebooks):
    heavy = {p.name: p.stat().st_size for p in notebooks if p.stat().st_size > 1_000_000}
    assert not heavy
    assert not [p.name for p in notebooks if "widgets" in json.loads(p.read_text())["metadata"]], "run tools/run_notebook.py on them"


def test_no_file_speaks_of_a_machine(root):
    words = re.compile(r"/(?:root|home|work|Users)/\w|/tmp/(?:tmp|ipykernel)\w|"
                       + r"py" r"pi\.org|python" r"hosted\.|download\.py" r"torch\.|anaconda" r"\.org")
    found = []
    for path in tracked(root):
        try: text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError: continue
        found += [f"{path.relative_to(root)}: {m[0]}" for m in words.finditer(text)]
    assert not found


def test_what_is_shipped_has_a_card(root):
    from semiml.ddpm.model import shipped
    assert shipped()
    for name, folder in shipped().items():
        card = (folder / "README.md").read_text()
        assert all(f"{w}" in card for w in (name, "Trained on", "- Data:", "- Training:", "- Made by: `python tools/", "Limits:", "Figures")), name
        assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 10e6 and not json.loads((folder / "semiml.json").read_text())["train_names"]


def test_the_summary_is_that_of_the_cells(root):
    from semiml.reproduce import read_cells, summary
    here = json.loads((root / "nbs" / "results" / "summary.json").read_text())
    assert here == json.loads(json.dumps(summary(read_cells(root / "nbs" / "results")))), "run semiml reproduce --summary --out nbs/results"


def test_types_hold(root, tmp_path):
    run = subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", tmp_path], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="module")
def built(root, tmp_path_factory):
    "An sdist built from a copy of the sources, so that the build leaves nothing behind in the project, and the wheel built from that sdist."
    src, out = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("built")
    for path in tracked(root):
        to = src / path.relative_to(root)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())
    run = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, src], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built):
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def library(root):
    "What is installed: every file of the project below semiml/."
    return {str(p.relative_to(root)) for p in tracked(root) if p.is_relative_to(root / "semiml")}


def test_wheel_holds_the_library_and_nothing_else(wheel, library):
    with zipfile.ZipFile(wheel) as z: names = set(z.namelist())
    assert {o for o in names if ".dist-info/" not in o} == library
    assert "semiml/py.typed" in names
    assert any(re.fullmatch(r"semiml-[^/]+\.dist-info/(licenses/)?LICENSE", o) for o in names)


def test_sdist_holds_what_the_wheel_is_built_from(built, library):
    with tarfile.open(next(built.glob("*.tar.gz"))) as t: names = {o.name.partition("/")[2] for o in t if o.isfile()}
    around = {"setup.py", "settings.ini", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff"}
    made = {o for o in names if o in ("PKG-INFO", "setup.cfg") or o.startswith("semiml.egg-info/")}
    assert names - made == library | around


def test_page_of_the_package_has_no_relative_link(wheel):
    with zipfile.ZipFile(wheel) as z: page = z.read(next(o for o in z.namelist() if o.endswith("/METADATA"))).decode()
    assert "](https://github.com/" in page and not re.findall(r"\]\((?!https?:|#)[^)]*\)", page)


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
