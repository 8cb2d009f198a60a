"""How fast the simulators are, on one core: `python tools/bench.py [--out nbs/results/speed]`

Prints scenes per second for every TEM device module at 256 x 256 and pairs per second for every SEM pattern at 2 x 224 x 224: processor time of one thread,
the median of a few rounds after a warm-up. Speed is measured here and nowhere in the tests: a busy machine must not fail them.
"""
import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
if hasattr(os, "sched_setaffinity"): os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import torch

from semiml.core import atomic_write, provenance
from semiml.sim import sem, tem
from semiml.sim.layout import PATTERNS

torch.set_num_threads(1)


def rate(make, n: int, rounds: int) -> float:
    "Calls per second of processor time of `make(i)`: the median over rounds of `n` calls."
    make(0)  # warm up
    seen = []
    for r in range(rounds):
        t = time.process_time()
        for i in range(n): make(r * n + i + 1)
        seen.append(n / (time.process_time() - t))
    return statistics.median(seen)


def cell(row: str, unit: str, each: dict, config: dict, seconds: float) -> dict:
    "A result cell: the rate of one of each kind in turn, that is the harmonic mean, and the slowest and the fastest kind."
    metrics = {unit: statistics.harmonic_mean(each.values()), f"slowest {unit}": min(each.values()), f"fastest {unit}": max(each.values())}
    where = provenance()
    return dict(table="speed", row=row, seed=0, scale="cpu", data="simulated", config=config | dict(threads=1, each=each), metrics=metrics,
                commit=where["commit"], hardware=where["hardware"], versions={k: where[k] for k in ("python", "torch", "numpy")}, seconds=seconds)


p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument("--out", type=Path, help="folder for the result cells; by default they are only printed")
p.add_argument("--n", type=int, default=6, help="scenes a round and kind")
p.add_argument("--rounds", type=int, default=3)
args = p.parse_args()

jobs = {
    "simulate TEM": ("scenes/s", {m: (lambda i, m=m: tem.scene(m, i, shape=(256, 256))) for m in tem.modules()}, dict(shape=[256, 256])),
    "simulate SEM pairs": ("pairs/s", {k: (lambda i, k=k: sem.site(k, i, shape=(224, 224))) for k in PATTERNS}, dict(shape=[2, 224, 224])),
}
for row, (unit, kinds, config) in jobs.items():
    t, each = time.perf_counter(), {}
    for name, make in kinds.items():
        each[name] = rate(make, args.n, args.rounds)
        print(f"{row:20} {name:26} {each[name]:7.1f} {unit}", flush=True)
    c = cell(row, unit, {k: round(v, 2) for k, v in each.items()}, config | dict(n=args.n, rounds=args.rounds), round(time.perf_counter() - t, 1))
    print(f"{row:20} {'one of each in turn':26} {c['metrics'][unit]:7.1f} {unit}   (one core of {c['hardware']})\n", flush=True)
    if args.out: atomic_write(args.out / f"{row.lower().replace(' ', '_')}.json", json.dumps(c, indent=1))
