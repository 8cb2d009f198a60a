"""Time to equal quality: `python tools/bench_ddpm.py --minutes 8 [--only PEER] [--out nbs/results/speed]`

The progressive DDPM of semiml beside two peers on the same fifteen simulated images, with a U-Net of the same size, on one machine with one thread: denoising-diffusion-pytorch (`pip install denoising-diffusion-pytorch`)
and diffusers' example for unconditional training, each with its defaults (whole images in batches of four, float32) and with the best setting that we found for it (bfloat16 where the processor has it, crops of 64 px, a higher learning rate).
A peer with its defaults gets twelve times as many minutes as semiml, at its best four times: more than the tenth and the third that are claimed, since steps are planned from the quick ones of a short trial. At some points of each training eight images are drawn and judged by figures of `ddpm.evaluate`; a peer has reached semiml's quality where the spectra of image and noise and the gray
values are at most a tenth farther from the real ones than semiml's at its end, or as close as real images are to each other. A peer's minutes are those at the pace that the machine had during semiml's training: the pace is measured before and after each. Runs go on where they were stopped, in the folder SEMIML_RUNS; all of them take 33 times `--minutes`.
"""
import argparse
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from torch import nn
from torch.nn import functional as F
from scipy.stats import wasserstein_distance

from semiml.core import atomic_write, best_precision, seed_for
from semiml.ddpm.model import PatchDDPM
from semiml.ddpm.patches import PatchBatches, levels_for, make_stages, plan_steps, resumed_stages
from semiml.ddpm.sample import sample
from semiml.ddpm.tables import SCALES, device, stack
from semiml.metrics import psd_distance
from semiml.reproduce import cell, cell_path, run_folder
from semiml.train import checkpoints, fit, read_log, read_tensors

CHANNELS, JUDGED = (32, 64, 96, 128), ("image PSD dB", "noise PSD dB", "gray EMD")
POINTS = 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1.


def judge(drawn, real):
    "The figures of `ddpm.evaluate` that are compared."
    g, r = (torch.tensor(x.astype(np.float32))[:, None] for x in (drawn, real))
    return dict(zip(JUDGED, (psd_distance(g, r), psd_distance(g, r, "noise"),
                             float(np.mean([wasserstein_distance(i.ravel()[::7], real.ravel()[::7]) for i in drawn])))))


class Crops:
    "`batches[step]`: whole images or crops, mirrored, -1 to 1."
    def __init__(self, images, n, side): self.images, self.n, self.side = images, n, side

    def __getitem__(self, step):
        rng, out = np.random.default_rng(seed_for(0, "peer", step)), []
        for _ in range(self.n):
            im = self.images[int(rng.integers(len(self.images)))]
            im = im.flip(-1) if rng.random() < .5 else im
            h, w = self.side or im.shape[-2:]
            y, x = (int(rng.integers(a - b + 1)) for a, b in zip(im.shape[-2:], (h, w)))
            out.append(im[:, y:y + h, x:x + w])
        return dict(x=torch.stack(out))


class Theirs(nn.Module):
    "denoising-diffusion-pytorch: its own U-Net, schedule and loss"
    def __init__(self, size):
        super().__init__()
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet
        self.net = GaussianDiffusion(Unet(dim=32, dim_mults=(1, 2, 3, 4), channels=1), image_size=size, timesteps=1000, sampling_timesteps=50)

    def loss(self, batch):
        self.net.image_size = tuple(batch["x"].shape[-2:])
        return {"mse": self.net(batch["x"] / 2 + .5)}

    def draw(self, n, size):
        self.net.image_size = size
        return self.net.sample(batch_size=n)[:, 0] * 2 - 1


class Example(nn.Module):
    "What diffusers' example trains: noise prediction, a linear schedule of 1000 steps"
    def __init__(self, size):
        super().__init__()
        n = len(CHANNELS) - 1
        self.net = UNet2DModel(in_channels=1, out_channels=1, block_out_channels=CHANNELS, layers_per_block=1, norm_num_groups=8,
                               down_block_types=("DownBlock2D",) * n + ("AttnDownBlock2D",),
                               up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * n)
        self.scheduler = DDPMScheduler(1000)

    def loss(self, batch):
        x = batch["x"]
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),), device=x.device)
        return {"mse": F.mse_loss(self.net(self.scheduler.add_noise(x, noise, t), t).sample.float(), noise)}

    def draw(self, n, size):
        s, x = DDIMScheduler.from_config(self.scheduler.config), torch.randn(n, 1, *size)
        s.set_timesteps(50)
        for t in s.timesteps: x = s.step(self.net(x, t).sample, t, x).prev_sample
        return x[:, 0]


class Ours(PatchDDPM):
    def draw(self, n, size): return self.to_unit(torch.tensor(sample(self.eval(), n, size, progress=False)))


PEERS = {  # model, times semiml's minutes, images a batch, crop, learning rate, precision
    "denoising-diffusion-pytorch": (Theirs, 12, 4, None, 8e-5, "no"), "diffusers example": (Example, 12, 4, None, 1e-4, "no"),
    "denoising-diffusion-pytorch, best": (Theirs, 4, 8, (64, 64), 4e-4, best_precision()),
    "diffusers example, best": (Example, 4, 8, (64, 64), 4e-4, best_precision())}


def pace():
    "Seconds of a fixed piece of work: a machine that is shared gets slower and faster within an hour."
    torch.manual_seed(0)
    net, x = nn.Sequential(*(nn.Conv2d(32, 32, 3, padding=1) for _ in range(4))), torch.randn(8, 32, 96, 128)
    seen = []
    for _ in range(15):
        t = time.perf_counter(); net(x).sum().backward(); seen.append(time.perf_counter() - t)
    return float(np.median(seen[3:]))


def points(name, model, batches, minutes, images, held, **how):
    "Train, and judge the averaged weights at some points: [(minutes, metrics)], images a second."
    out, size = run_folder("bench_ddpm", name), tuple(images.shape[-2:])
    steps = how.pop("steps", None) or (json.loads((out / "config.json").read_text())["steps"] if (out / "config.json").exists() else None)
    if steps is None:
        twin, begin, took = type(model)(size), time.perf_counter(), []
        opt = torch.optim.AdamW(twin.parameters())
        while len(took) < 6 or time.perf_counter() - begin < 20:
            t = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=how["precision"] == "bf16"): loss = sum(twin.loss(batches[len(took)]).values())
            loss.backward(); opt.step(); opt.zero_grad()
            took.append(time.perf_counter() - t)
        steps = max(16, int(60 * minutes / np.quantile(took, .2)))  # those that nothing else on the machine disturbed: the training shall not be too short
    fit(model, batches, steps, out, checkpoint_every=max(1, steps // 16), keep=99, resume=(out / "config.json").exists(), progress=sys.stderr.isatty(), **how)
    seen, log = [], read_log(out)
    for share in POINTS:
        path = min(checkpoints(out), key=lambda p: abs(int(p.stem[5:]) - share * steps))
        tensors = read_tensors(path)[0]
        with torch.no_grad():
            for n, p in model.named_parameters(): p.copy_(tensors[f"ema/{n}"])
            torch.manual_seed(0)
            drawn = ((model.eval().draw(8, size) + 1) / 2 * float(np.ptp(images)) + float(images.min())).numpy()
        m = judge(drawn, np.concatenate([images, held]))
        t = next(r["seconds"] for r in log if r["step"] >= min(int(path.stem[5:]), log[-1]["step"])) / 60
        seen.append((t, {k: m[k] for k in JUDGED}))
        print(f"{name:36} {t:6.1f} min  " + "  ".join(f"{k} {m[k]:5.1f}" for k in JUDGED), flush=True)
    return seen, steps / (60 * log[-1]["seconds"] / 60)


p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument("--minutes", type=float, default=8., help="of semiml's training")
p.add_argument("--only", choices=PEERS, help="one peer; the default is all")
p.add_argument("--out", type=Path, help="folder for the result cells; by default they are only printed")
args = p.parse_args()
torch.set_num_threads(1)
s = SCALES["cpu"]
images, held = (stack(device(s, "A", s[k], k2)) for k, k2 in (("n", "train"), ("held", "held")))
LEVELS = levels_for(images.shape[1:])
unit = torch.tensor((images - images.min()) / np.ptp(images) * 2 - 1)[:, None]
torch.manual_seed(0)
mine = Ours(images.shape[1:], LEVELS, (images.min(), images.max()), None, CHANNELS, flips="h")
there = run_folder("bench_ddpm", "semiml")
first = pace()
stages = resumed_stages(there) if (there / "config.json").exists() else plan_steps(make_stages(images.shape[1:], LEVELS,
        pixels=s["options"]["pixels"]), args.minutes, model=mine, images=len(images))
own, per_s = points("semiml", mine, PatchBatches(unit, stages, LEVELS, "h"), args.minutes, images, held, steps=sum(k["steps"] for k in stages),
                    config=dict(stages=stages), precision=best_precision())
if not (there / "pace.json").exists(): atomic_write(there / "pace.json", json.dumps((first + pace()) / 2))
own_pace = json.loads((there / "pace.json").read_text())  # of the day when it was trained
floor = judge(held, images)  # real images among each other: nobody has to be closer
goal = {k: max(1.1 * own[-1][1][k], floor[k]) for k in JUDGED}
for name, (kind, times, n, side, lr, precision) in PEERS.items():
    if args.only not in (None, name): continue
    if kind is Theirs and not find_spec("denoising_diffusion_pytorch"):
        print(f"{name}: not installed, so it is not timed (pip install denoising-diffusion-pytorch)", flush=True)
        continue
    torch.manual_seed(0)
    before = pace()
    seen, rate = points(name, kind(images.shape[1:]), Crops(unit, n, side), own[-1][0] * times * before / own_pace, images, held, lr=lr, warmup=0,
                        weight_decay=0., precision=precision)
    slower = (before + pace()) / 2 / own_pace
    seen, rate = [(t / slower, m) for t, m in seen], rate * slower  # at the pace that the machine had for semiml
    reached = next((t for t, m in seen if all(m[k] <= goal[k] for k in JUDGED)), None)
    metrics = {"semiml minutes": own[-1][0], "peer minutes": seen[-1][0], "minutes to equal quality": reached or float("nan"),
               "time ratio": own[-1][0] / reached if reached else float("nan"), "steps/s": rate, "machine slower": slower,
               "images/s": rate * n, **{f"semiml {k}": v for k, v in own[-1][1].items()}, **{f"peer {k}": v for k, v in seen[-1][1].items()},
               **{f"real-real {k}": v for k, v in floor.items()}}
    c = cell("speed", f"ddpm against {name}", 0, "cpu", "simulated", metrics, dict(threads=1, batch=n, crop=side, lr=lr, precision=precision,
            channels=CHANNELS), curve=seen, own=own)
    print(c["row"], c["metrics"], flush=True)
    if args.out: atomic_write(cell_path(args.out, f"ddpm {name}", "cpu", 0), json.dumps(c, indent=1))
