"""A lot of images from its arrival to one page: `python tools/demo.py --out demo`

First the tutorial `nbs/tutorials/06_lot_to_report.ipynb`, on simulated images: its page is `report.html`, the notebook with all outputs lies beside it.
Then a diffusion model of minutes on real images, the SEM images of prefab_soi, since nothing else here shows any: `synthetic.html`. With neither
`SEMIML_DATA` nor a network it takes simulated FinFET images, and says so.
"""
import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from semiml.cli import main
from semiml.core import BadInput
from semiml.datasets import get, open_dataset

LOT = Path(__file__).resolve().parents[1] / "nbs" / "tutorials" / "06_lot_to_report.ipynb"


def lot(out: Path, run: Path, scale: str):
    "Run a copy of the tutorial cell by cell, and print what it says."
    import nbformat
    from nbclient import NotebookClient
    os.environ.update(SEMIML_SCALE=scale, SEMIML_RUNS=str(run.resolve()))  # the notebook makes its folder there
    nb = nbformat.read(LOT, as_version=4)
    client = NotebookClient(nb, timeout=3600, kernel_name="python3", resources={"metadata": {"path": str(LOT.parent)}})
    try:
        with client.setup_kernel():
            for i, cell in enumerate(nb.cells):
                if cell.cell_type == "markdown" and cell.source.startswith("## "): print("\n" + cell.source.splitlines()[0], flush=True)
                client.execute_cell(cell, i)
                for o in cell.get("outputs", []):
                    if o.output_type == "stream" and o.name == "stdout": print(o.text, end="", flush=True)
    finally: nbformat.write(nb, out / LOT.name)
    shutil.copy(next(run.glob("lot-*/report.html")), out / "report.html")


def images(out: Path):
    "The data set, the names to hold out, the mirror images allowed, and a line for the report"
    real = "Real SEM images: prefab_soi, random patterns in 220 nm silicon on insulator (MIT, National Research Council Canada and McGill University)."
    try:
        open_dataset("prefab_soi", check=False)
    except BadInput:
        try:
            get("prefab_soi")
        except (BadInput, OSError):
            print("No real images (SEMIML_DATA is not set and the download failed): using simulated FinFET TEM images instead.", flush=True)
            data = out / "simulated"
            if not data.exists() and main(["simulate", "tem", "--n", "25", "--seed", "3", "--out", str(data)]): sys.exit(2)
            names = open_dataset(data).names
            return data, names[15:], "h", "SIMULATED images of FinFETs (simulator only, not validated on fab data)."
    return "prefab_soi", open_dataset("prefab_soi").names[2::5], "hv", real


def synthetic(out: Path, run: Path, scale: str, minutes: float):
    "Train on eleven images, draw new ones, judge them, write a page."
    data, held_out, flips, about = images(out)
    for words in (
        ["ddpm", "train", data, "--held-out", ",".join(held_out), "--flips", flips, "--scale", scale, "--about", about, "--out", run]
        + (["--minutes", minutes] if scale == "cpu" else []),
        ["ddpm", "sample", run, "--n", 8 if scale == "cpu" else 4],
        ["ddpm", "evaluate", run],
        ["report", run, "--out", out / "synthetic.html"],
    ):
        print("\n$ semiml " + " ".join(str(w) for w in words), flush=True)
        if code := main([str(w) for w in words]): sys.exit(code)


p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument("--out", type=Path, default=Path("demo"))
p.add_argument("--scale", default="cpu", choices=("ci", "cpu", "paper"))
p.add_argument("--only", choices=("lot", "synthetic"), help="one of the two parts")
p.add_argument("--minutes", type=float, default=4, help="of training of the diffusion model on real images, at scale cpu")
args = p.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
run = next(r for r in (args.out / f"run{k or ''}" for k in range(10_000)) if not r.exists())  # an earlier demo stays
run.mkdir()

t0 = time.time()
if args.only != "synthetic": lot(args.out, run, args.scale)
if args.only != "lot": synthetic(args.out, run / "ddpm", args.scale, args.minutes)
pages = [args.out / f for f in ("report.html", "synthetic.html") if (args.out / f).exists()]
print(f"\n{time.time() - t0:.0f} s in all. Open {' and '.join(map(str, pages))}")
