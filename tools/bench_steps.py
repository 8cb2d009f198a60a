"""Where the time of a training step goes: `python tools/bench_steps.py [--only ddpm] [--out nbs/results/speed]`

For a step of each of the four trainings at scale `cpu` (forward, backward, optimiser; one thread, the batch made beforehand): the wall time, the floating-point operations that PyTorch counts in matrix products and convolutions, the share of
this processor's measured peak that they reach, and the operators that take most of the time. The peak is the best rate of a product of two square matrices in the same precision, in the same run.
"""
import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from semiml.core import atomic_write, seed_for
from semiml.reproduce import cell
from semiml.sim import tem
from semiml.train import best_precision

torch.set_num_threads(1)


def peak(dtype, side: int = 1024, rounds: int = 7) -> float:
    "The best rate of a matrix product, floating-point operations a second."
    a, b = (torch.randn(side, side, dtype=dtype) for _ in range(2))
    a @ b
    best = 0.
    for _ in range(rounds):
        t = time.perf_counter(); a @ b
        best = max(best, 2 * side**3 / (time.perf_counter() - t))
    return best


def convolution_backward(grad, x, w, bias, stride, padding, dilation, transposed, output_padding, groups, mask, out_shape=None) -> int:
    "As many as forward for each of the two gradients that are asked for; PyTorch's own count forgets the groups."
    return conv_flop_count(x, w, grad, transposed=transposed) * (mask[0] + mask[1])


def ddpm(stage: int):
    "A stage of progressive training: 0 small fields at the coarsest level, -1 whole images."
    from semiml.ddpm.model import PatchDDPM
    from semiml.ddpm.patches import PatchBatches, make_stages, options
    o = options("cpu", (192, 256))
    stages = [dict(make_stages(o["size"], o["levels"], o["patch"], o["pixels"])[stage], steps=1)]
    model = PatchDDPM(o["size"], o["levels"])
    batch = PatchBatches(torch.randn(4, 1, *o["size"]), stages, o["levels"], model=model)[0]
    return model, batch, f"{len(batch['x'])} x {batch['x'].shape[-2]} x {batch['x'].shape[-1]} px"


def sesami():
    from semiml.sesami.lora import add_lora
    from semiml.sesami.model import load
    from semiml.sesami.train import Batches, Tuner
    s = tem.scene("finfet_gate", 1, shape=(256, 256))
    return Tuner(add_lora(load(image_size=512), rank=16).train(), 1), Batches([s.image], [s.mask], 8)[0], "one image at 512 px, 8 objects"


def semisup():
    from semiml.segnet import deeplab
    from semiml.semisup.method import METHODS, SemiSupervised, Views
    from semiml.semisup.tables import NAMES, SCALES, device, label
    s, o, data = SCALES["cpu"], METHODS["proposed"], device(SCALES["cpu"], "A", 12, "speed")
    images, masks = [x.image for x in data], [label(x) for x in data]
    batch = Views(images[:6], masks[:6], images[6:], s["n"], s["m"], (s["side"],) * 2, o["sets"], o["cutmix"])[0]
    return SemiSupervised(deeplab(len(NAMES), seed=seed_for(0, "net")), len(NAMES), o["choose"],
                          o["features"]).train(), batch, f"{s['n']} labelled and {s['m']} other crops of {s['side']} px"


def semssl():
    from semiml.semssl.model import Pretraining, encoder
    n = 32
    return Pretraining(encoder("cpu"), .25, ("self", "cross")), dict(views=torch.randn(n, 4, 1, 64, 64), group=torch.arange(n),
                                                                     mask=torch.rand(n, 4, 64)), f"{n} sites of four views of 64 px"


JOBS = {"ddpm, small fields": lambda: ddpm(0), "ddpm, whole images": lambda: ddpm(-1), "sesami": sesami, "semisup": semisup, "semssl": semssl}


def measure(name: str, rounds: int = 5) -> dict:
    torch.manual_seed(0)
    t0, (model, batch, what) = time.perf_counter(), JOBS[name]()
    precision, opt = best_precision(), torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"): loss = sum(model.loss(batch).values())
        loss.backward(); opt.step(); opt.zero_grad()

    step()  # warm up
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward}) as counter: step()
    flops, best, seen = counter.get_total_flops(), peak(torch.bfloat16 if precision == "bf16" else torch.float32), []
    for _ in range(rounds):
        t = time.perf_counter(); step(); seen.append(time.perf_counter() - t)
    with profile(activities=[ProfilerActivity.CPU]) as p: step()
    ops = sorted(((e.key, e.self_cpu_time_total) for e in p.key_averages()), key=lambda e: -e[1])
    total, s = sum(v for _, v in ops), statistics.median(seen)
    m = {"s/step": s, "GFLOP/step": flops / 1e9, "peak GFLOP/s": best / 1e9, "share of peak": flops / s / best}
    return cell("speed", f"step of {name}", 0, "cpu", "simulated", m, dict(threads=1, precision=precision, what=what,
            operators={k.removeprefix("aten::"): round(v / total, 3) for k, v in ops[:6]}), time.perf_counter() - t0)


p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument("--only", choices=JOBS)
p.add_argument("--out", type=Path, help="folder for the result cells; by default they are only printed")
args = p.parse_args()
for name in JOBS:
    if args.only not in (None, name): continue
    if name == "sesami" and not os.environ.get("SEMIML_WEIGHTS"): print("sesami: no SEMIML_WEIGHTS, not timed"); continue
    c = measure(name)
    print(f"{name:20} {c['config']['what']:44}", {k: round(v, 3) for k, v in c["metrics"].items()}, c["config"]["operators"], flush=True)
    if args.out: atomic_write(args.out / f"step_{name.replace(', ', '_').replace(' ', '_')}.json", json.dumps(c, indent=1))
