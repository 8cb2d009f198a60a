"""How fast things are: `python tools/bench.py [--out nbs/results/speed] [--sesami | --semisup | --semssl]`

Simulators: scenes per second for every TEM device module at 256 x 256 and pairs per second for every SEM pattern at 2 x 224 x 224: processor time of one thread,
the median of a few rounds after a warm-up. SeSAMI: wall time of the encoder, of a prompt on a cached embedding and of a training step, and the ratio to MobileSAM's own predictor with
the same weights and image, in turn; needs public weights. Semi-supervised segmentation: processor time of a training step of each method, in turn, with its data. Pretraining: images per second beside lightly's masked autoencoder with the same transformer, decoder, batch and mask, in turn (lightly
is installed by hand: `pip install lightly`). Speed is measured here and nowhere in the tests: a busy machine must not fail them.
"""
import argparse
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path

SESAMI = "--sesami" in sys.argv[1:]
if not SESAMI:
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"): os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import torch

from semiml.core import atomic_write
from semiml.reproduce import cell as result
from semiml.sim import sem, tem
from semiml.sim.layout import PATTERNS

if not SESAMI: torch.set_num_threads(1)


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
    return result("speed", row, 0, "cpu", "simulated", metrics, config | dict(threads=1, each=each), seconds)


def wall(make, rounds: int = 5) -> float:
    "Median wall time of a call, s, after a warm-up."
    make()
    seen = []
    for _ in range(rounds):
        t = time.perf_counter(); make(); seen.append(time.perf_counter() - t)
    return statistics.median(seen)


def sesami_cell(size: int) -> dict:
    "Encoder, prompt and training step of the adapted MobileSAM, and MobileSAM's own predictor beside it, at 1024 px."
    from mobile_sam import SamPredictor, sam_model_registry
    import numpy as np
    from semiml.sesami.lora import add_lora
    from semiml.sesami.model import _find, load
    from semiml.sesami.prompts import Prompt, objects
    from semiml.sesami.segment import Segmenter
    from semiml.sesami.train import Batches, Tuner
    t0, s = time.perf_counter(), tem.scene("finfet_gate", 1, shape=(256, 256))
    x, y = np.argwhere(objects(s.mask)[0]["mask"])[len(s.mask)][::-1]; prompt = Prompt([[x, y]], [1])
    seg = Segmenter(load(image_size=size), precision="no"); m = {}
    def encoder(): seg.seen.clear(); seg.set_image(s.image)
    m["encoder s"] = wall(encoder); m["prompt s"] = wall(lambda: seg.predict(prompt))
    fast = Segmenter(seg.sam, precision="bf16")
    def encoder16(): fast.seen.clear(); fast.set_image(s.image)
    m["encoder bf16 s"] = wall(encoder16)
    if size == 1024:
        peer = SamPredictor(sam_model_registry["vit_t"](checkpoint=str(_find("vit_t"))).eval()); rgb = np.repeat(s.image[..., None], 3, 2).astype(np.uint8)
        m["peer encoder s"] = wall(lambda: peer.set_image(rgb)); m["encoder time ratio"] = m["encoder s"]/m["peer encoder s"]
        m["peer prompt s"] = wall(lambda: peer.predict(prompt.points, prompt.labels)); m["prompt time ratio"] = m["prompt s"]/m["peer prompt s"]
    sam = add_lora(load(image_size=size), rank=16).train(); tuner, batches = Tuner(sam, 1), Batches([s.image], [s.mask], 8)
    def step():
        with torch.autocast("cpu", torch.bfloat16): loss = sum(tuner.loss(batches[0]).values())
        loss.backward()
    m["LoRA step s"] = wall(step, 3); m["peak memory GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6
    return result("speed", f"sesami {size} px", 0, "cpu", "simulated", m, dict(threads=torch.get_num_threads(), objects=8, rounds=1, rank=16),
                  time.perf_counter() - t0)


def semisup_cell() -> dict:
    "A step of each method at scale cpu (AdamW, bfloat16, one thread): making the views, forward, backward, and the optimiser."
    from semiml.core import seed_for
    from semiml.segnet import deeplab
    from semiml.semisup.method import METHODS, SemiSupervised, Views
    from semiml.semisup.tables import NAMES, SCALES, device, label
    t0, s, seen, ways = time.perf_counter(), SCALES["cpu"], {}, {}
    data = device(s, "A", 12, "speed")
    images, masks = [x.image for x in data], [label(x) for x in data]
    for k, o in METHODS.items():
        method = SemiSupervised(deeplab(len(NAMES), seed=seed_for(0, "net")), len(NAMES), o["choose"], o["features"]).train()
        ways[k] = method, Views(images[:6], masks[:6], images[6:], s["n"], s["m"], (s["side"],) * 2, o["sets"],
                                o["cutmix"]), torch.optim.AdamW(method.parameters())
    for step in range(7):
        for k, (method, views, opt) in ways.items():
            t = time.process_time()
            with torch.autocast("cpu", torch.bfloat16): loss = sum(method.loss(views[step]).values())
            loss.backward(); opt.step(); opt.zero_grad()
            if step: seen.setdefault(k, []).append(1e3 * (time.process_time() - t))
    m = {f"{k} ms a step": statistics.median(v) for k, v in seen.items()}
    return result("speed", "semisup", 0, "cpu", "simulated", m, dict(threads=1, n=s["n"], m=s["m"], side=s["side"]), time.perf_counter() - t0)


def semssl_cell(ratio: float, n: int = 128) -> dict:
    "Steps of pretraining (AdamW, float32, one thread): ours without and with contrast, and the steps of lightly's example for masked autoencoders."
    import lightly
    from lightly.models import utils
    from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
    from semiml.semssl.model import Pretraining, encoder
    t0, x, group = time.perf_counter(), torch.randn(n // 4, 4, 1, 64, 64), torch.arange(n // 4)
    vit = encoder("cpu", class_token=True)  # lightly's example keeps the class token, so ours does here, too
    vit.pos_embed.requires_grad_(True)
    peer, decoder = MaskedVisionTransformerTIMM(vit=vit), MAEDecoderTIMM(num_patches=64, patch_size=8, in_chans=1, embed_dim=128,
            decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=4)

    def theirs():
        images = x.flatten(0, 1)
        keep, masked = utils.random_token_mask(size=(n, peer.sequence_length), mask_ratio=ratio, device="cpu")
        seen = decoder.embed(peer.encode(images=images, idx_keep=keep))
        full = utils.repeat_token(decoder.mask_token, (n, peer.sequence_length))
        out = decoder.decode(utils.set_at_index(full, keep, seen.type_as(full)))
        want = utils.get_at_index(utils.patchify(images, 8), masked - 1)
        return torch.nn.functional.mse_loss(decoder.predict(utils.get_at_index(out, masked)), want)

    def ours(kinds):
        m = Pretraining(encoder("cpu", class_token=True), ratio, kinds)
        return lambda: sum(m.loss(dict(views=x, group=group, mask=torch.rand(n // 4, 4, 64))).values()), m.parameters()

    ways, seen = {"lightly": (theirs, [*peer.parameters(), *decoder.parameters()]), "MAE": ours(()), "MAE+CL": ours(("self", "cross"))}, {}
    steps = {k: (f, torch.optim.AdamW([p for p in ps if p.requires_grad])) for k, (f, ps) in ways.items()}
    for turn in range(7):
        for k, (f, opt) in steps.items():
            t = time.process_time(); f().backward(); opt.step(); opt.zero_grad()
            if turn: seen.setdefault(k, []).append(n / (time.process_time() - t))  # the first is a warm-up
    m = {f"{k} images/s": statistics.median(v) for k, v in seen.items()}
    m["throughput ratio"] = m["MAE images/s"] / m["lightly images/s"]
    return result("speed", f"semssl against lightly, mask {ratio:g}", 0, "cpu", "simulated", m,
                  dict(threads=1, lightly=lightly.__version__, images=n, side=64, patch=8, dim=128, depth=4), time.perf_counter() - t0)


p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument("--out", type=Path, help="folder for the result cells; by default they are only printed")
p.add_argument("--n", type=int, default=6, help="scenes a round and kind")
p.add_argument("--rounds", type=int, default=3)
p.add_argument("--sesami", action="store_true", help="time SeSAMI instead of the simulators")
p.add_argument("--semisup", action="store_true", help="time semi-supervised segmentation instead")
p.add_argument("--semssl", action="store_true", help="time pretraining on pairs instead")
args = p.parse_args()
if args.semisup:
    c = semisup_cell()
    print(c["row"], {k: round(v, 1) for k, v in c["metrics"].items()}, flush=True)
    if args.out: atomic_write(args.out / "semisup.json", json.dumps(c, indent=1))
    sys.exit()
if args.semssl:
    for ratio in (.25, .75):
        c = semssl_cell(ratio)
        print(c["row"], {k: round(v, 3) for k, v in c["metrics"].items()}, flush=True)
        if args.out: atomic_write(args.out / f"semssl_{ratio:g}.json", json.dumps(c, indent=1))
    sys.exit()
if SESAMI:
    for size in (512, 1024):
        c = sesami_cell(size)
        print(c["row"], {k: round(v, 3) for k, v in c["metrics"].items()}, flush=True)
        if args.out: atomic_write(args.out / f"sesami_{size}.json", json.dumps(c, indent=1))
    sys.exit()

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
