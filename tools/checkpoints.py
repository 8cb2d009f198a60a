"""The DDPM that is shipped: `python tools/checkpoints.py [--steps 1800] [--images 100] [--pixels 32768]`

Trains on simulated FinFET cross-sections of two processes, which it can be told apart, and on their label maps, which it can be told to follow; writes `semiml/checkpoints/finfet_tem` in half precision, a result cell for each
process, and the model card with the figures of these cells. About 25 minutes of one core, then some minutes for the figures. A run that was stopped goes on, in the folder SEMIML_RUNS.
"""
import argparse
import json
from pathlib import Path

import numpy as np

from semiml.core import atomic_write
from semiml.ddpm.evaluate import evaluate
from semiml.ddpm.model import load, save
from semiml.ddpm.patches import train
from semiml.ddpm.sample import sample
from semiml.ddpm.tables import SCALES, Scenes, device, following, instrument, stack
from semiml.reproduce import cell, cell_path, once, run_folder

ROOT = Path(__file__).resolve().parent.parent
FOLDER, CELLS = ROOT / "semiml" / "checkpoints" / "finfet_tem", ROOT / "nbs" / "results" / "ddpm"
SHOWN = ("pixels right", "instrument/pixels right", "cd/error nm", "cd/error sd nm", "instrument/cd/error nm", "instrument/cd/error sd nm",
         "pitch/error nm", "metal/error nm", "instrument/metal/error nm", "copy rate", "noise PSD dB", "noise PSD real-real dB", "image PSD dB",
         "image PSD real-real dB")

CARD = """# finfet_tem: cross-sections of FinFETs, simulated

A denoising diffusion model (`semiml.ddpm.model.PatchDDPM`) that draws TEM cross-sections of the module `finfet_gate`, {h} x {w} pixels of {px:.2g} nm, in the look of process A or B, after a label map. It serves to try the package in seconds and as a start for models of real images (`semiml ddpm transfer`).
**Trained on simulated images only, not validated on fab data: nothing that it draws is evidence about a real device.**

- Data: {n} images of each of the processes A and B from `semiml.sim.tem`, seed 0, with their label maps; no real image was used.
- Training: {steps} steps by progressive patches (`ddpm.patches`), {minutes:.0f} minutes of one core of {hardware}; one seed (0).
- Made by: `python tools/checkpoints.py --images {n} --steps {steps} --pixels {pixels}`
- Weights: half precision, {mb:.1f} MB, safetensors; licence as the package (Apache-2.0).
- Classes of its label maps: {classes}.

Figures, from {drawn} images of each process, drawn after label maps of layouts that were not trained on (`nbs/results/ddpm/checkpoint_*.json`). *Pixels right* and sizes are read by a network, which errs as well: the lines *instrument* are the same reading of the simulator's own images of these layouts. What the others mean: `semiml.ddpm.evaluate`.

| figure | process A | process B |
|---|---|---|
{rows}

Limits: **without a label map it draws badly** (one sample in ten was trained without: fins of no clear outline, CD and pitch off by nanometres); one module, one size of pixels, two processes; smaller images and other aspect ratios work, larger ones by windows.
"""

p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument("--steps", type=int, default=1800)
p.add_argument("--images", type=int, default=100, help="of each process")
p.add_argument("--pixels", type=int, default=32_768, help="in a batch")
args = p.parse_args()
s = SCALES["cpu"] | dict(shape=(192, 256), pixel=.5, options=dict(scale="cpu", pixels=args.pixels))
scenes = [x for process in "AB" for x in device(s, process, args.images, "checkpoint")]
run = run_folder("ddpm", f"checkpoint_{args.images}_{args.steps}_{args.pixels}")
if not (run / "model" / "semiml.json").exists():
    train(Scenes(scenes), run, **s["options"], steps=args.steps, flips="h", processes=[x.truth["process"] for x in scenes],
          maps=np.stack([x.mask for x in scenes]), classes=scenes[0].classes,
          resume=(run / "config.json").exists())
    for q in "AB": cell_path(CELLS, f"checkpoint_{q}", "cpu", 0).unlink(missing_ok=True)  # figures of another model
model = load(run / "model")
model.config["train_names"] = []  # two hundred names of simulated images help nobody
save(model, FOLDER, half=True)
model = load("finfet_tem")  # what users get

def row(process):
    "Drawn after layouts that it has not seen, read by the network that measures; looks and copies beside fifteen images of the training."
    wanted, px, net = device(s, process, s["held"], "held"), model.config["pixel_size"], instrument(s, "cpu")
    got = sample(model, len(wanted), steps=s["draw_steps"], process=process, maps=np.stack([x.mask for x in wanted]), progress=False)
    looks = evaluate(got, stack([x for x in scenes if x.truth["process"] == process][:15]), stack(wanted), data_range=float(np.ptp(stack(wanted))),
                     flips="h", progress=False)["metrics"]
    return cell("ddpm", f"checkpoint finfet_tem, process {process}", 0, "cpu", "simulated", {k: v for k, v in looks.items() if k in SHOWN}
                | following(net, px, got, wanted) | following(net, px, stack(wanted), wanted, "instrument/"), s | dict(images=args.images, steps=args.steps))

cells = {q: once(cell_path(CELLS, f"checkpoint_{q}", "cpu", 0), lambda: row(q)) for q in "AB"}
log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
h, w = model.config["image_size"]
rows = "\n".join(f"| {k} | " + " | ".join(f"{cells[q]['metrics'][k]:.3g}" if cells[q]["metrics"].get(k) is not None else "" for q in "AB") + " |"
                 for k in SHOWN)
atomic_write(FOLDER / "README.md", CARD.format(h=h, w=w, px=model.config["pixel_size"][0], n=args.images, steps=args.steps, pixels=args.pixels,
                                               minutes=log[-1]["seconds"] / 60, hardware=cells["A"]["hardware"].get("cpu", "a CPU")
     if isinstance(cells["A"]["hardware"], dict) else cells["A"]["hardware"],
                                                mb=sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) / 1e6,
                                                classes=", ".join(model.config["materials"]), drawn=s["held"], rows=rows))
print(rows)
