"""Do shards keep memory flat and reading steady? `python tools/bench_shards.py [--out nbs/results/scaleout] [--sizes 1000,10000,100000,320000]`

A few hundred simulated sites, repeated under new names, become webdataset shards of 1,000 small pairs in a temporary folder (5 kB a pair, so 1.6 GB for 320,000; removed
afterwards). For each size and reader a fresh process reads 10,000 pairs (of the largest set a whole epoch, too) and says the processor time of its one thread and the
largest memory it ever had. "Shards" is what pretraining reads by (two shards in memory; before each epoch they are dropped, else 1,000 pairs would be read once and
never again); "Stream" goes from sample to sample through a buffer of 1,000.
"""
import argparse
import csv
import gc
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from semiml.core import BadInput, atomic_write
from semiml.reproduce import cell
from semiml.semssl.shards import Shards, Stream, write_shards

PER, BATCH, READ = 1000, 100, 10_000  # pairs a shard, a batch, and how many are read


def memory(key: str) -> float:
    "Memory of this process in MB, VmRSS: now, VmHWM: the most so far (since it began, while `resource` also counts the parent's)."
    try: return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(key))/1024
    except OSError: raise BadInput("no /proc/self/status: run the bench on Linux") from None


def write(folder: Path, shards: int, sites: int, side: int):
    "`shards` shards of `PER` pairs: the bytes of `sites` simulated sites under ever new names."
    from semiml.sim.sem import PATTERNS, simulate
    made = [dict(low=p.low.image, high=p.high.image, label=p.label, device=p.device) for p in simulate(sites, 0, pattern=tuple(PATTERNS), shape=(64, 64))]
    data = (write_shards([made[i % sites] | dict(name=f"pair-0000-{i:04d}") for i in range(PER)], folder/"one", side, PER)/"shard-000000.tar").read_bytes()
    # of tar: the name first, the sum of all bytes at 148
    headers = {m.start(): int(data[m.start() + 148:m.start() + 154], 8) for m in re.finditer(b"pair-0000-", data)}
    for k in range(shards):
        new, more = bytearray(data.replace(b"pair-0000-", b"pair-%04d-" % k)), sum(map(int, str(k)))
        for at, total in headers.items(): new[at + 148:at + 154] = b"%06o" % (total + more)
        (folder/f"shard-{k:06d}.tar").write_bytes(new)


def first(source: Path, folder: Path, shards: int, side: int) -> Path:
    "A folder with the first shards of `source`, as hard links: no more bytes on the disk."
    folder.mkdir()
    for k in range(shards): os.link(source/f"shard-{k:06d}.tar", folder/f"shard-{k:06d}.tar")
    with open(folder/"labels.csv", "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n"); w.writerow(["name", "label", "device", "wafer", "site"])
        w.writerows([f"pair-{k:04d}-{i:04d}", "", "A", f"w{k}", f"{k}-{i}"] for k in range(shards) for i in range(PER))
    atomic_write(folder/"index.json", json.dumps(dict(format="semiml shards 1", side=side, counts=[PER]*shards)))
    return folder


def batches(reader: str, folder: Path):
    "First nothing, when the index is read; then (n, 2, S, S) bytes without end."
    if reader == "Stream":
        stream = Stream(folder, shuffle=1000, rank=0, world=1); yield np.empty(0); stream = iter(stream)
        while True: yield np.stack([s["image"].numpy() for s in itertools.islice(stream, BATCH)])
    shards = Shards(folder); yield np.empty(0)
    for epoch in itertools.count():
        shards._held.clear(); order = shards.order(np.random.default_rng(epoch))
        for i in range(0, len(order), BATCH): yield shards[order[i:i + BATCH]]


def read(reader: str, folder: Path, pairs: int) -> dict:
    "In a process of its own: read, and say how fast and with how much memory, in all and along the way."
    gc.collect(); before, t0, seen, way = memory("VmRSS"), time.process_time(), 0, []
    for x in batches(reader, folder):
        if not len(x): opened, w0 = time.process_time() - t0, time.perf_counter()
        seen += len(x)
        if seen and seen % READ == 0: way.append([seen, round(time.process_time() - t0, 2), round(memory("VmRSS"), 1)])
        if seen >= pairs: break
    cpu = time.process_time() - t0
    return {"pairs/s": seen/(cpu - opened), "peak MB": memory("VmHWM"), "MB before": before, "MB more": memory("VmHWM") - before, "s to open": opened,
            "wall pairs/s": seen/(time.perf_counter() - w0), "pairs read": seen, "way": way}


def main():
    ap = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ap.add_argument("--out", default="nbs/results/scaleout"); ap.add_argument("--sizes", default="1000,10000,100000,320000")
    ap.add_argument("--sites", type=int, default=200); ap.add_argument("--side", type=int, default=32)
    ap.add_argument("--whole", action="store_true", help="of the largest set a whole epoch, not 10,000 pairs")
    ap.add_argument("--read", nargs=3, metavar=("READER", "FOLDER", "PAIRS"), help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.read: return print(json.dumps(read(args.read[0], Path(args.read[1]), int(args.read[2]))))
    sizes = sorted(int(s) for s in args.sizes.split(","))
    if any(s < PER or s % PER for s in sizes): raise BadInput(f"--sizes {args.sizes}: give multiples of {PER}")
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp); t0 = time.process_time(); write(tmp, sizes[-1]//PER, args.sites, args.side); wrote = time.process_time() - t0
        size = sum(p.stat().st_size for p in tmp.glob("*.tar"))
        print(f"{sizes[-1]} pairs written: {size/1e9:.2f} GB, {wrote:.0f} s of a processor", flush=True)
        for n in sizes:
            folder = first(tmp, tmp/f"{n}", n//PER, args.side)
            for reader in ("Shards", "Stream"):
                pairs = n if args.whole and n == sizes[-1] else min(READ, sizes[-1])
                run = subprocess.run([sys.executable, __file__, "--read", reader, folder, str(pairs)], stdout=subprocess.PIPE, text=True, check=True)
                r = json.loads(run.stdout.splitlines()[-1]); way = r.pop("way")
                c = cell("scaleout", f"{reader} {n}", 0, "paper", "simulated", r,
                         dict(pairs=n, per_shard=PER, side=args.side, batch=BATCH, sites=args.sites, bytes_a_pair=round(size/sizes[-1]), threads=1), way=way)
                atomic_write(Path(args.out)/f"{reader.lower()}_{n}.json", json.dumps(c, indent=1))
                print(f"{reader:7} {n:7} pairs: {r['pairs/s']:6.0f} pairs/s, {r['peak MB']:.0f} MB at most, {r['MB more']:.0f} MB more than before", flush=True)


if __name__ == "__main__": main()
