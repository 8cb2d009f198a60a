"""Broken and hostile files for every reader and loader, for `tools/reliability.py`.

A case is a number: it says which file of a target is spoiled, and how (cut, flipped bytes, zeroed ranges, spliced with another file, bytes inserted or doubled, another suffix; in JSON, CSV and
safetensors headers also values that hypothesis draws). Cases run one after the other in a forked process with little memory and a limit of processor time, which another one watches, so that a hang or
a crash is a finding as well. Allowed is a result, or one sentence as `BadInput` or `CannotSave`; not allowed is any other exception, a warning of Python's about executed code, a file outside of the
folder of the case, a process started, a network address looked up, or a class that a pickle asked for.
"""
import contextlib
import copy
import csv
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from semiml.core import BadInput, CannotSave

SECONDS, MEMORY = 20, 2 << 30  # of processor time for a case, and bytes of memory beyond what the process has at its start
LARGE, MANY = 2**31 + 7, [1] * 100_000
NASTY = [None, True, 0, -1, 1, 3, LARGE, -2**63, 10**30, 1e308, -0.5, float("nan"), float("inf"), "", "x", "../../outside", "/etc/hostname", "1e999",
         "\0", "ä\n\u2028", [], {}, [[]], [None], {"": {}}, MANY]


@dataclass
class Target:
    name: str  # its folder
    kind: str  # image, mask, config, checkpoint, archive
    call: Callable  # call(path of the spoiled file, rng): reads it as a user's command would
    files: list  # those that are spoiled, relative to the folder
    rename: bool = False  # may the file get another suffix?
    repair: Callable | None = None  # repair(folder): checksums that a careful forger would set right, in every other case
    data: str = "simulated"


def values(n: int, seed: int) -> list:
    "JSON values, drawn by hypothesis."
    from hypothesis import HealthCheck, Phase, given, seed as seeded, settings, strategies as st
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(NASTY[:-1])
    tree = st.recursive(leaf, lambda s: st.lists(s, max_size=4) | st.dictionaries(st.text(max_size=8), s, max_size=4), max_leaves=8)
    out = []

    @seeded(seed)
    @settings(max_examples=n, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(tree)
    def draw(v): out.append(v)
    draw()
    return out + NASTY


# --- spoiling

def spoil_bytes(b: bytes, rng, other: bytes) -> bytes:
    "The bytes, damaged in one way or two."
    a = bytearray(b)
    for _ in range(rng.integers(1, 3)):
        n = max(len(a), 1); at = int(rng.integers(min(n, 400) if rng.random() < .5 else n))
        k = int(min(rng.geometric(.02), n)) # half of the damage in the header
        match rng.choice(["cut", "flip", "zero", "splice", "insert", "double", "numbers"], p=[.2, .3, .1, .1, .1, .05, .15]):
            case "cut": del a[at:]
            case "flip":
                for i in (at + rng.integers(0, 64, rng.integers(1, 8))) % n: a[i:i + 1] = bytes([rng.integers(256)])
            case "zero": a[at:at + k] = bytes(len(a[at:at + k]))
            case "splice": j = int(rng.integers(max(len(other), 1))); a[at:at + k] = other[j:j + k]
            case "insert": a[at:at] = rng.bytes(k)
            case "double": a[at:at] = a[at:at + k]
            case "numbers": a[at:at + 4] = [b"\xff" * 4, b"\0" * 4, b"\0\0\0\x7f", b"\x7f\xff\xff\xff", b"\x01\0\0\0"][rng.integers(5)]
    return bytes(a)


def spoil_value(v, rng, pool):
    "A JSON value with one of its parts replaced, taken away, or added to."
    v = copy.deepcopy(v); places = []

    def walk(o):
        for k in (list(o) if isinstance(o, dict) else range(len(o)) if isinstance(o, list) else ()): places.append((o, k)); walk(o[k])
    walk(v)
    draw = lambda: pool[rng.integers(len(pool))]
    if not places or rng.random() < .05: return draw()
    where, k = places[rng.integers(len(places))]
    match rng.choice(["replace", "remove", "add", "number", "text"], p=[.5, .15, .1, .15, .1]):
        case "replace": where[k] = draw()
        case "remove": del where[k]
        case "add": where.update({str(draw())[:40]: draw()}) if isinstance(where, dict) else where.append(draw())
        case "number": where[k] = where[k] * int(rng.integers(-2, 2000)) if isinstance(where[k], (int, float)) else draw()
        case "text": where[k] = where[k][::-1] + "x" if isinstance(where[k], str) else str(where[k])[:100]
    return v


def spoil_json(text: str, rng, pool) -> str:
    if rng.random() < .03: return ["[" * 200_000, '{"a":' * 100_000, "1" * 10_000, "\ufeff{}", "null", "", "NaN"][rng.integers(7)]
    lines = [l for l in text.splitlines() if l.strip()]
    if len(lines) > 1 and not text.lstrip().startswith(("{\n", "[\n")):  # a log: one line of it
        k = rng.integers(len(lines)); lines[k] = json.dumps(spoil_value(json.loads(lines[k]), rng, pool)); return "\n".join(lines) + "\n"
    return json.dumps(spoil_value(json.loads(text), rng, pool))


def spoil_csv(text: str, rng, pool) -> str:
    rows = list(csv.reader(io.StringIO(text))); r = rows[rng.integers(len(rows))]; k = int(rng.integers(len(r))); out = io.StringIO()
    match rng.integers(5):
        case 0: r[k] = str(pool[rng.integers(len(pool))])[:1000]
        case 1: del r[k]
        case 2: r.append("more")
        case 3: rows.append(list(rows[rng.integers(len(rows))]))
        case 4: r[k] = ["\0", "\"", "\r", "=1+1", "../x", "x" * 200_000][rng.integers(6)]
    csv.writer(out).writerows(rows)
    return out.getvalue()


def spoil_header(b: bytes, rng, pool) -> bytes:
    "A safetensors file whose header says something else."
    n = int.from_bytes(b[:8], "little"); h = json.dumps(spoil_value(json.loads(b[8:8 + n]), rng, pool)).encode()
    return len(h).to_bytes(8, "little") + h + b[8 + n:]


def spoil(path: Path, b: bytes, rng, pool, other: bytes) -> bytes:
    "The content of the file, spoiled by its kind."
    try:
        if rng.random() < .65:
            if path.suffix in (".json", ".jsonl"): return spoil_json(b.decode(), rng, pool).encode(errors="surrogatepass")
            if path.suffix == ".csv": return spoil_csv(b.decode(), rng, pool).encode(errors="surrogatepass")
        if path.suffix == ".safetensors" and rng.random() < .5: return spoil_header(b, rng, pool)
    except (RecursionError, OverflowError): pass  # a value that JSON itself cannot say
    return spoil_bytes(b, rng, other)


# --- a worker that runs cases, and one who watches it

class Slow(BaseException): "Too much processor time"


def watch_for(evil: list, home: Path):
    "What no reader may do is noted in `evil`. Cannot be undone: for a process that ends soon."
    asked = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo", "pickle.find_class", "os.symlink",
             "os.link", "os.chmod", "os.remove", "os.rename", "os.mkdir"}

    def hook(event, args):
        if event == "open" and isinstance(args[0], (str, bytes)) and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            paths = [args[0]]
        elif event in ("os.remove", "os.mkdir", "os.chmod", "os.rename"):
            paths = [a for a in args[:2] if isinstance(a, (str, bytes)) and args[-1] in (-1, None)] # not those that are named below an open folder
        elif event in asked: evil.append(f"{event} {args[:2]!r}"[:200]); return
        else: return
        for p in map(os.fsdecode, paths):
            if not os.path.abspath(p).startswith(f"{home}{os.sep}") and "__pycache__" not in p and p != os.devnull: evil.append(f"{event} of {p}"[:200])
    sys.addaudithook(hook)


def one(target: Target, path: Path, rng, evil: list) -> str:
    "What a call ends in: 'result', 'refused', or a finding."
    del evil[:]
    said = io.StringIO()
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            target.call(path, rng)
        end = "result"
    except (BadInput, CannotSave) as e:
        text = str(e.strerror if isinstance(e, CannotSave) and e.strerror else e)
        end = "refused" if text.strip() and "\n" not in text else f"not one sentence: {text!r}"[:300]
    except Slow: end = f"hang: more than {SECONDS} s"
    except (Exception, SystemExit) as e:
        at = [f for f in traceback.extract_tb(e.__traceback__) if "semiml" in f.filename] or traceback.extract_tb(e.__traceback__)
        end = f"traceback: {type(e).__name__}: {str(e)[:120]!r} at {Path(at[-1].filename).name}:{at[-1].lineno}"
    finally: signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return f"forbidden: {evil[0]}" if evil else end


def work(targets: list, good: Path, home: Path, seed: int, cases: range, pool: list, results: Path, as_they_are: bool = False):
    "Run cases in this process, a line of `results` for each; a case is the same in whatever process it runs. `as_they_are`: case k is file k, and nothing is spoiled."
    evil = []
    shutil.rmtree(home, ignore_errors=True); shutil.copytree(good, home); tempfile.tempdir = str(home)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if Path("/proc/self/statm").exists() else 8 << 30
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def slow(*_): raise Slow
    signal.signal(signal.SIGVTALRM, slow); watch_for(evil, home)
    with open(results, "a", buffering=1) as f:
        for k in cases:
            rng = np.random.default_rng([seed, k]); every = [(t, f) for t in targets for f in t.files]
            t = every[k][0] if as_they_are else targets[k % len(targets)]
            name = every[k][1] if as_they_are else t.files[rng.integers(len(t.files))]; folder = home/t.name
            o = targets[rng.integers(len(targets))]
            path, other = folder/name, (good/o.name/o.files[rng.integers(len(o.files))]).read_bytes()
            b, to = path.read_bytes(), path
            if t.rename and not as_they_are and rng.random() < .1:
                to = path.with_suffix(rng.choice([".png", ".tif", ".dm3", ".ser", ".emd", ".bcf", ".jpg", ".txt"]))
                path.rename(to)
            if not as_they_are and (to == path or rng.random() < .5): to.write_bytes(spoil(path, b, rng, pool, other))
            if t.repair and rng.random() < .5:
                with contextlib.suppress(Exception): t.repair(folder)
            end = one(t, to, rng, evil)
            f.write(json.dumps(dict(case=k, target=t.name, file=str(to.relative_to(folder)), end=end)) + "\n")
            if t.kind not in ("image", "mask") or to != path: shutil.rmtree(folder); shutil.copytree(good/t.name, folder)
            else: path.write_bytes(b)


def watched(run: Callable[[Path, int], None], results: Path, n: int, patience: float = 200.) -> list:
    "The findings of n cases, each a dict; `run(results, first)` runs in a forked process, which is started again behind a case that hung or killed it."
    lines = lambda: [json.loads(l) for l in results.read_text().splitlines()] if results.exists() else []
    while (done := len(lines())) < n:
        sys.stdout.flush(); sys.stderr.flush()
        if not (pid := os.fork()):
            try: run(results, done); os._exit(0)
            except BaseException: traceback.print_exc(); os._exit(1)
        moved, size = time.monotonic(), -1
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if (now := results.stat().st_size if results.exists() else 0) != size: moved, size = time.monotonic(), now
            if time.monotonic() - moved > patience: os.kill(pid, signal.SIGKILL); ended = os.waitpid(pid, 0); break
            time.sleep(.05)
        if len(lines()) < n:
            if ended[1] and not os.WIFSIGNALED(ended[1]): raise SystemExit("the worker itself failed, see above")
            how = "hang: killed" if time.monotonic() - moved > patience else f"crash: signal {os.WTERMSIG(ended[1])}" if os.WIFSIGNALED(ended[1]) else "ended the process"
            with open(results, "a") as f: f.write(json.dumps(dict(case=len(lines()), target="?", file="?", end=how)) + "\n")
    return lines()


def fuzz(targets: list, good: Path, work_folder: Path, n: int | None, seed: int = 0) -> list:
    "Run n cases over the targets in turn; None: each file once as it is. A dict a case: case, target, file, end."
    pool, exact = values(300, seed), n is None; n = sum(len(t.files) for t in targets) if exact else n
    results = work_folder/"results.jsonl"; results.unlink(missing_ok=True)
    return watched(lambda path, first: work(targets, good, work_folder/"home", seed, range(first, n), pool, path, exact), results, n)
