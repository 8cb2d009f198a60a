"""What breaks, and what is lost: `python tools/reliability.py [--out nbs/results/reliability] [--kills 20] [--fuzz 6000] [--seed 0] [--only WORD]`

Each of the four trainings at a tiny size is killed with SIGKILL from outside at random moments, resumed until it is done, and compared with an unbroken run, weights bit for bit and the loss curve number
for number. Then faults on the command line of each: a disk that fills up at a random moment (RLIMIT_FSIZE, so that any file ends at a random size), a folder that turns read-only (by its mode; root, which ignores
modes, gives up that right first), two processes in one folder, images too large for the memory, Ctrl-C. Then broken files, see `tools/fuzz.py`. Simulated images, and the real ones in SEMIML_DATA
where it is set. One result cell an experiment; those that are there are kept, so that a run that was stopped goes on. Processes are forked from this one, which has everything imported: they start at once.
"""
import argparse
import hashlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads must not be forked

import numpy as np
import tifffile
import torch
from PIL import Image

torch.set_num_threads(1)

import fuzz
import fuzz_files
from semiml import cli
from semiml.core import BadInput, CannotSave
from semiml.ddpm import patches
from semiml.reproduce import cell, cell_path, once
from semiml.segnet import deeplab
from semiml.semisup import train as semisup
from semiml.semssl import pretrain as semssl
from semiml.sesami import train as sesami
from semiml.sesami.lora import export
from semiml.sesami.model import build, load
from semiml.sim import tem
from semiml.train import checkpoints, fit, read_log

HOW = dict(log_every=1, progress=False, precision="no")
FOUR = ("DDPM", "SeSAMI", "semi-supervised", "self-supervised")


# --- the four trainings, tiny

def often(*args, **how):
    "`fit` with a checkpoint every few steps, where the commands have one every hundred: so short a run would have none."
    return fit(*args, **how | dict(checkpoint_every=2 if (args[2:3] or [how.get("steps")])[0] < 10 else 5, log_every=1))


class Tiny:
    "Data in a folder, and each training as a function of (folder of the run, resume), called in Python or as a command."
    def __init__(self, root: Path):
        self.root = root; scenes = tem.simulate(6, seed=1, shape=(96, 128), pixel_size_nm=1.); self.ds = tem.save(scenes, root/"tem")
        self.images, self.masks = [self.ds[i].pixels for i in range(6)], [self.ds.mask(i) for i in range(6)]; self.free = self.images[2:]
        rng = np.random.default_rng(0); self.pairs = rng.integers(0, 255, (24, 2, 32, 32), np.uint8)
        fuzz_files.pair_files(root/"pairs"); export(build("small", image_size=64), root/"small.pt")
        for which in FOUR: self.python(which, root/"warm"/which, False, 1)  # what a first step imports, no forked process has to

    def python(self, which: str, out: Path, resume: bool, steps: int | None = None):
        n = len(self.ds.classes)
        match which:
            case "DDPM": patches.train(self.ds, out, scale="ci", steps=steps or 24, flips="h", checkpoint_every=6, resume=resume, **HOW)
            case "SeSAMI": sesami.train(self.images, self.masks, out, sam=load(self.root/"small.pt", image_size=64), scale="ci", steps=steps or 12,
                                        checkpoint_every=3, resume=resume, **HOW)
            case "semi-supervised": semisup.train(self.images[:2], self.masks[:2], self.free, n, out, scale="ci", steps=steps or 8, side=32,
                                                  net=deeplab(n, "tu-mobilenetv3_small_050", weights=False, seed=1), checkpoint_every=2, resume=resume, **HOW)
            case "self-supervised": semssl.pretrain(self.pairs, out, scale="ci", steps=steps or 24, n=8, groups=np.arange(24) // 2,
                                                    checkpoint_every=6, resume=resume, **HOW)

    def command(self, which: str, out: Path, resume: bool, data=None) -> int:
        for module in (patches, sesami, semisup, semssl): module.fit = often
        words = {"DDPM": ["ddpm", "train", data or self.root/"tem", "--steps", 24, "--held-out", .5, "--flips", "h"],
                 "SeSAMI": ["sesami", "train", data or self.root/"tem", "--steps", 12, "--checkpoint", self.root/"small.pt", "--image-size", 64],
                 "semi-supervised": ["semisup", "train", data or self.root/"tem", "--steps", 4, "--side", 32],
                 "self-supervised": ["semssl", "pretrain", data or self.root/"pairs", "--steps", 24, "--batch", 4]}[which]
        return cli.main([str(w) for w in words] + ["--scale", "ci", "--out", str(out)] + ["--resume"] * resume)


def outcome(out: Path) -> tuple:
    "What must be the same: the bytes of all weights, and the losses."
    files = sorted((out/"model").rglob("*.safetensors"))
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in files], [(r["step"], r["loss"], r["grad_norm"]) for r in read_log(out)]


# --- processes

class Child:
    "`run()` in a forked process, its words in a file. Exit code: that of the command, 2 for an error that is meant for users, 1 for any other."
    def __init__(self, run, log: Path, prepare=lambda: None):
        self.log, self.t0, self.code = log, time.monotonic(), None; sys.stdout.flush(); sys.stderr.flush()
        self.pid = os.fork()
        if self.pid: return
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
            f = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC); os.dup2(f, 1); os.dup2(f, 2); warnings.simplefilter("ignore"); prepare(); code = run() or 0
        except (BadInput, CannotSave) as e: print(f"semiml: {e}", file=sys.stderr); code = 2
        except BaseException: traceback.print_exc()
        finally: sys.stdout.flush(); sys.stderr.flush(); os._exit(code)

    def wait(self, seconds: float = 300) -> int | None:
        "The exit code, minus the signal that ended it, or None: it still runs. The seconds count from its start."
        if self.code is not None: return self.code
        while not (end := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() - self.t0 > seconds: return None
            time.sleep(.002)
        self.code, self.seconds = os.waitstatus_to_exitcode(end[1]), time.monotonic() - self.t0
        return self.code

    def end(self, seconds: float = 300) -> int:
        if (code := self.wait(seconds)) is None: os.kill(self.pid, signal.SIGKILL); self.wait(1e9); code = self.code = 999
        return code

    @property
    def said(self) -> str: return self.log.read_text(errors="replace") if self.log.exists() else ""

    def one_sentence(self, words="") -> bool:
        lines = [l for l in self.said.splitlines() if l.startswith("semiml: ")]
        return len(lines) == 1 and words in lines[0] and "Traceback" not in self.said


def can_resume(out: Path) -> bool: return (out/"config.json").exists()


def finish(run, out: Path, log: Path) -> tuple:
    "Go on until it is done; a run that had not begun is begun. (outcome, or None; what was said)"
    c = Child(lambda: run(out, can_resume(out)), log)
    return (outcome(out) if c.end() == 0 else None), c.said[-300:]


def kill(tiny: Tiny, which: str, n: int, seed: int, work: Path) -> dict:
    "Kill it n times, at moments drawn from the seed: a share of the time that the whole takes, or some milliseconds after a line of the log has appeared."
    run, log = partial(tiny.python, which), work/"log"; whole = work/"whole"
    c = Child(lambda: run(whole, False), log)
    if c.end(): raise SystemExit(f"{which}: the unbroken run failed\n{c.said}")
    want, total, steps = outcome(whole), c.seconds, len(read_log(whole))
    rng = np.random.default_rng([seed, FOUR.index(which)]); killed, trials, lost = [], 0, []
    while len(killed) < n:
        out, trials, deaths = work/f"run{trials}", trials + 1, []
        for _ in range(1 + (rng.random() < .3)):  # some die again while they go on
            late, line, wait = rng.random(), int(rng.integers(0, steps + 1)) if rng.random() < .5 else None, rng.random() * total / steps
            c = Child(lambda: run(out, can_resume(out)), log); path = out/"log.jsonl"; end = None
            if line is None: end = c.wait(late * total)
            else:
                while end is None and (path.read_bytes().count(b"\n") if path.exists() else 0) < line: end = c.wait(time.monotonic() - c.t0 + .005)
                if end is None: end = c.wait(time.monotonic() - c.t0 + wait)
            if end is None:
                os.kill(c.pid, signal.SIGKILL); end = c.wait(1e9)
                if end == -signal.SIGKILL:
                    deaths.append(dict(run=trials, after_s=round(c.seconds, 3), steps=len(read_log(out)) if out.exists() else 0,
                                       checkpoints=len(checkpoints(out)), model=(out/"model").exists()))
            if end == 0: break
            if end not in (0, -signal.SIGKILL): lost.append(f"run {trials}: exit code {end}: {c.said[-300:]}"); break
        got, said = finish(run, out, log)
        if deaths and got != want: lost.append(f"run {trials}: {'another result' if got else said}")
        left = [str(p.relative_to(out)) for p in out.rglob("*.tmp")] + [p.name for p in work.glob(f"{out.name}/.*") if p.is_dir()]
        killed += [d | dict(litter=len(left)) for d in deaths]; shutil.rmtree(out)
    return dict(metrics=dict(tried=len(killed), survived=len(killed) - len(lost), lost=len(lost)), kills=killed, lost=lost,
                config=dict(kills=n, steps=steps, seconds=round(total, 2)))


# --- faults on the command line

def modes_count():
    "Root may write whatever the mode says; without this capability (CAP_DAC_OVERRIDE) it may not."
    if os.getuid(): return
    import ctypes
    libc, head, sets = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(head, sets): raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~2; sets[1] &= ~2  # effective, permitted
    if libc.capset(head, sets): raise OSError(ctypes.get_errno(), "capset")


def disk_full(tiny, which, rng, work, want, total):
    "From a random moment on no file can have more than so many bytes."
    run, out = partial(tiny.command, which), work/"run"; n = int(10 ** rng.uniform(3.3, 6.3)); c = Child(lambda: run(out, False), work/"log")
    if c.wait(rng.random() * total) is None: resource.prlimit(c.pid, resource.RLIMIT_FSIZE, (n, n))
    code = c.end(); good = code == 0 or code == 2 and c.one_sentence("cannot be saved")
    return (f"{n} bytes: exit code {code}: {c.said[-300:]}" if not good else None), finish(run, out, work/"log2"), code


def read_only(tiny, which, rng, work, want, total):
    "The run's folder can no longer be written to from a random moment on, or from the beginning."
    run, out = partial(tiny.command, which), work/"run"; late = rng.random() * 1.2 - .2; folders = lambda: [work, *(p for p in work.rglob("*") if p.is_dir())]
    def turn(mode): [p.chmod(mode) for p in sorted(folders(), key=lambda p: len(p.parts), reverse=mode == 0o555)]
    if late < 0: turn(0o555)
    c = Child(lambda: run(out, False), work.parent/"log", modes_count)
    if late >= 0 and c.wait(late * total) is None: turn(0o555)
    code = c.end(); turn(0o755); good = code == 0 or code == 2 and c.one_sentence("cannot be")
    return (f"after {max(late, 0):.0%}: exit code {code}: {c.said[-300:]}" if not good else None), finish(run, out, work.parent/"log2"), code


def two_at_once(tiny, which, rng, work, want, total):
    "Two processes start, or go on, in one folder at the same time: one does its work, the other says why it does not."
    run, out, log = partial(tiny.command, which), work/"run", work.parent; going = rng.random() < .5
    if going:
        c = Child(lambda: run(out, False), log/"log")
        if c.wait(total * rng.uniform(.4, .9)) is None: os.kill(c.pid, signal.SIGKILL); c.wait(1e9)
    resume = can_resume(out); both = [Child(lambda: run(out, resume), log/f"log{k}") for k in (1, 2)]; codes = [c.end() for c in both]
    # the second may come when the first is done
    ok = sorted(codes) == [0, 2] and both[codes.index(2)].one_sentence() if 2 in codes else codes == [0, 0] and resume
    return (f"exit codes {codes}: {both[0].said[-200:]} | {both[1].said[-200:]}" if not ok else None), finish(run, out, log/"log3"), 2


def ctrl_c(tiny, which, rng, work, want, total):
    "Ctrl-C at a random moment."
    run, out = partial(tiny.command, which), work/"run"; c = Child(lambda: run(out, False), work/"log")
    if c.wait(rng.random() * total) is None: os.kill(c.pid, signal.SIGINT)
    code = c.end(); good = code == 0 or code == 130 and c.one_sentence("stopped")
    return (f"exit code {code}: {c.said[-300:]}" if not good else None), finish(run, out, work/"log2"), code


def too_large(tiny, which, rng, work, want, total):
    "An image says that it is enormous, or is larger than the memory: nothing is begun."
    k, data, out = int(rng.integers(3)), work/"data", work/"run"; shutil.copytree(tiny.root/("pairs" if which == "self-supervised" else "tem"), data)
    old = sorted((data/("low" if which == "self-supervised" else "images")).iterdir())[0]; new = old.with_suffix(".tif"); old.unlink()
    if k == 2: tifffile.imwrite(new, np.pad(np.eye(9000, dtype=np.uint8), 1), compression="zlib", rowsperstrip=9002)  # honest, but too much for this process
    else:
        new = old.with_suffix((".png", ".tif")[k]); Image.fromarray(np.eye(64, dtype=np.uint8)).save(new); b = bytearray(new.read_bytes())
        if k == 0: import zlib; b[16:24] = (60_000).to_bytes(4, "big") * 2; b[29:33] = zlib.crc32(b[12:29]).to_bytes(4, "big")
        else:
            with tifffile.TiffFile(new) as t: tags = [t.pages[0].tags[c] for c in (256, 257)]
            for tag in tags: b[tag.offset:tag.offset + 12] = np.array([tag.code, 4], "<u2").tobytes() + np.array([1, 10 ** 9], "<u4").tobytes()
        new.write_bytes(b)
    def little():
        n = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (100 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (n, n))
    c = Child(lambda: tiny.command(which, out, False, data), work/"log", little); code = c.end()
    return (f"image {k}: exit code {code}: {c.said[-300:]}" if not (code == 2 and c.one_sentence("memory" if k == 2 else "too large"))
            or can_resume(out) else None), (want, ""), code


FAULTS = {"disk full": disk_full, "read-only folder": read_only, "two at once": two_at_once, "Ctrl-C": ctrl_c, "image larger than the memory": too_large}


def faults(tiny: Tiny, which: str, n: int, seed: int, work: Path) -> dict:
    "{fault: what it did}, n of each."
    whole = work/"whole"; c = Child(lambda: tiny.command(which, whole, False), work/"log")
    if c.end(): raise SystemExit(f"{which}: the unbroken command failed\n{c.said}")
    want, out, metrics = outcome(whole), {}, {}
    for i, (name, fault) in enumerate(FAULTS.items()):
        rng, lost, codes = np.random.default_rng([seed, FOUR.index(which), i]), [], []
        for k in range(n):
            at = work/f"{i}_{k}"/"here"; at.mkdir(parents=True)
            wrong, (got, said), code = fault(tiny, which, rng, at, want, c.seconds); codes.append(code)
            if wrong: lost.append(wrong)
            elif got != want: lost.append(f"exit code {code}, then {'another result' if got else said}")
            shutil.rmtree(at.parent)
        metrics |= {f"{name}/tried": n, f"{name}/survived": n - len(lost), f"{name}/lost": len(lost)}
        out[name] = dict(codes=dict(Counter(map(str, codes))), lost=lost)
    total = {k: sum(v for m, v in metrics.items() if m.endswith(f"/{k}")) for k in ("tried", "survived", "lost")}
    return dict(metrics=total | metrics, faults=out, config=dict(each=n, seconds=round(c.seconds, 2)))


# --- broken files

SHARES = {"images": .2, "masks": .1, "settings": .25, "checkpoints": .12, "archives": .15, "real images": .12, "real masks": .06}  # of the cases


def broken(group: list, good: Path, n: int | None, seed: int, work: Path) -> dict:
    "Cases over the targets of a group, None: each file as it is."
    ends = fuzz.fuzz(group, good, work, n, seed)
    lost = [e for e in ends if e["end"] not in ("result", "refused")]
    by = Counter((e["target"], e["end"] if e["end"] in ("result", "refused") else "lost") for e in ends)
    return dict(metrics=dict(tried=len(ends), survived=len(ends) - len(lost), lost=len(lost), results=sum(e["end"] == "result" for e in ends),
                             refused=sum(e["end"] == "refused" for e in ends)), lost=lost[:50],
                targets={t.name: {k: by[t.name, k] for k in ("result", "refused", "lost")} for t in group},
                config=dict(cases=len(ends), files=sum(len(t.files) for t in group)))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", default="nbs/results/reliability", type=Path)
    p.add_argument("--kills", type=int, default=20)
    p.add_argument("--faults", type=int, default=5, help="of each kind and training")
    p.add_argument("--fuzz", type=int, default=6000); p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", default="", help="experiments with this word")
    a = p.parse_args(); args = dict(seed=a.seed, scale="ci")
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp); tmp.chmod(0o755); made = {}

        def experiment(row, data, make):
            if a.only not in row: return
            def run():
                work = tmp/"work"; work.mkdir(); work.chmod(0o755); r = make(work); shutil.rmtree(work); m = r.pop("metrics")
                return cell("reliability", row, a.seed, "ci", data, m, r.pop("config"), **r)
            c = once(cell_path(a.out, row, "ci", a.seed), run); m = c["metrics"]
            print(f"{row:36} {m['tried']:6.0f} tried {m['survived']:6.0f} survived {m['lost']:4.0f} lost   {c['seconds']:.0f} s", flush=True)

        def tiny():
            if "tiny" not in made: made["tiny"] = Tiny(tmp/"tiny")
            return made["tiny"]

        def files():
            if "files" not in made:
                real = Path(os.environ["SEMIML_DATA"]) if os.environ.get("SEMIML_DATA") else None; said = sys.stdout; sys.stdout = open(os.devnull, "w")
                try: made["files"] = fuzz_files.targets(tmp/"good", real); fuzz_files.sound(made["files"], tmp/"good")
                finally: sys.stdout = said
            return made["files"]
        for w in FOUR: experiment(f"kill and resume {w}", "simulated", lambda work: kill(tiny(), w, a.kills, a.seed, work))
        for w in FOUR: experiment(f"faults {w}", "simulated", lambda work: faults(tiny(), w, a.faults, a.seed, work))
        experiment("fuzz hostile", "simulated", lambda work: broken(files()["hostile"], tmp/"good", None, a.seed, work))
        for g, share in SHARES.items():
            if not g.startswith("real") or os.environ.get("SEMIML_DATA"):
                experiment(f"fuzz {g}", "real:super1" if g == "real masks" else "real:vendor_formats" if g == "real images" else "simulated",
                           lambda work: broken(files()[g], tmp/"good", round(a.fuzz * share), a.seed, work))


if __name__ == "__main__": main()
