"""The main job, from images to a page: `python tools/demo.py --out demo`

Trains on the real SEM images of prefab_soi; with neither `SEMIML_DATA` nor a network, on simulated FinFET images, and says so.
"""
import argparse
import sys
import time
from pathlib import Path

from semiml.cli import main
from semiml.core import BadInput
from semiml.datasets import get, open_dataset


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


p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument("--out", type=Path, default=Path("demo"))
p.add_argument("--scale", default="cpu", choices=("ci", "cpu", "paper"))
args = p.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
run = next(r for r in (args.out / f"run{k or ''}" for k in range(10_000)) if not r.exists())  # an earlier demo stays

t0 = time.time()
data, held_out, flips, about = images(args.out)
for words in (
    ["ddpm", "train", data, "--held-out", ",".join(held_out), "--flips", flips, "--scale", args.scale, "--about", about, "--out", run],
    ["ddpm", "sample", run, "--n", 16 if args.scale == "cpu" else 4],
    ["ddpm", "evaluate", run],
    ["report", run, "--out", args.out / "report.html"],
):
    print("\n$ semiml " + " ".join(str(w) for w in words), flush=True)
    if code := main([str(w) for w in words]): sys.exit(code)
print(f"\n{time.time() - t0:.0f} s in all. Open {args.out / 'report.html'}")
