"""Do the lower bounds of settings.ini hold? `make bounds`, or `python tools/lower_bounds.py [--venv FOLDER] [--python python3.11]`

Installs each requirement in exactly the version that settings.ini calls the lowest (what these need in turn is left to pip) into a fresh environment
outside the project, imports every module of the library, and runs the notebooks that use the requirements. Exit code 1 if anything fails.
An environment that is there already is used as it is. About 6 GB and a quarter of an hour.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("nbdev", "execnb", "fastcore", "ghapi", "ipykernel")  # of dev_requirements, to run notebooks
NOTEBOOKS = ("00_core 10_formats 12_micrograph 14_public 20_physics 27_sim_gds 30_metrics 33_register 36_judges 41_train 42_segnet 50_ddpm_model 60_sesami_model "
             "61_sesami_lora 66_sesami_annotate 70_semisup_method 81_semssl_shards 83_semssl_model 89_advise").split()
IMPORT = """
import importlib, pkgutil, sys, semiml
bad = {}
for m in pkgutil.walk_packages(semiml.__path__, "semiml."):
    try: importlib.import_module(m.name)
    except Exception as e: bad[m.name] = f"{type(e).__name__}: {e}"
for k, v in bad.items(): print(k, v)
print(len(bad), "modules cannot be imported"); sys.exit(bool(bad))
"""


def lowest(line):
    "`name[extra]>=1.2` as `name[extra]==1.2`."
    name, bound = re.fullmatch(r"([\w.\[\]-]+?)(?:==|>=)([\w.]+)", line).groups()
    return f"{name}=={bound}"


def environment(folder, python):
    cfg = ConfigParser(delimiters=["="]); cfg.read(ROOT / "settings.ini", encoding="utf-8"); s = cfg["DEFAULT"]
    pins = [lowest(o) for k in ("requirements", "formats_requirements", "mobilesam_requirements") for o in s[k].split()]
    tools = [o for o in s["dev_requirements"].split() if re.match(r"[\w.-]+", o)[0] in TOOLS]
    subprocess.run([python, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", *pins, *tools], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, help="where; default: a temporary folder")
    parser.add_argument("--python", default="python3.11")
    parser.add_argument("notebooks", nargs="*", default=NOTEBOOKS, help="names in nbs/api, without .ipynb")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        venv = (args.venv or Path(tmp) / "venv").resolve()
        if not (venv / "bin" / "nbdev_test").exists(): environment(venv, args.python)
        env = dict(os.environ, PYTHONPATH=str(ROOT), SEMIML_SCALE="ci", OMP_NUM_THREADS="1", MPLBACKEND="agg",
                   PATH=f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}")
        failed = ["import"] * bool(subprocess.run([venv / "bin" / "python", "-c", IMPORT], cwd=tmp, env=env).returncode)
        for name in args.notebooks:
            run = subprocess.run([venv / "bin" / "nbdev_test", "--path", f"nbs/api/{name}.ipynb", "--n_workers", "0"], cwd=ROOT, env=env,
                                 capture_output=True, text=True)
            print(f"{name}: {'failed' if run.returncode else 'passed'}", flush=True)
            if run.returncode: failed.append(name); print(run.stdout[-3000:], run.stderr[-3000:])
    print("the lower bounds hold" if not failed else f"these fail at the lower bounds: {', '.join(failed)}")
    sys.exit(bool(failed))
