"""A run that is killed, or whose disk fills up, loses nothing and ends as the unbroken one would have."""
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from semiml.core import CannotSave
from semiml.ddpm.patches import train
from semiml.sim.tem import save, simulate
from semiml.train import checkpoints, read_log

SETTINGS = dict(scale="ci", steps=24, flips="h", checkpoint_every=6, log_every=1, progress=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return save(simulate(4, seed=1, shape=(96, 128), pixel_size_nm=1.), tmp_path_factory.mktemp("data") / "tem")


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    train(data, out, **SETTINGS)
    return result(out)


def result(out):
    "What must be the same: the bytes of the weights, and the losses"
    weights = (out / "model" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest(), [(r["step"], r["loss"], r["grad_norm"]) for r in read_log(out)]


# kill -9 by the process itself, at an exact place: nothing of it can be caught, flushed or tidied up
KILLED = """
import json, os, signal, sys
from semiml.datasets import open_dataset
from semiml.ddpm import patches
data, out, at, settings = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
if at.startswith("step"):
    get = patches.PatchBatches.__getitem__
    patches.PatchBatches.__getitem__ = lambda self, step: die() if step == int(at[4:]) else get(self, step)
else:
    replace, which = os.replace, [0]
    def dying(a, b):
        which[0] += str(b).endswith(".safetensors")
        if which[0] == int(at[4:]): die()
        replace(a, b)
    os.replace = dying
patches.train(open_dataset(data), out, **settings)
"""


@pytest.mark.parametrize("at, kept", [("step2", 0), ("step15", 12), ("save2", 6)])
def test_kill_9_and_resume_gives_the_same_bits(data, unbroken, tmp_path, at, kept):
    out = tmp_path / "run"
    dead = subprocess.run([sys.executable, "-c", KILLED, str(data.root), str(out), at, json.dumps(SETTINGS)], capture_output=True, text=True)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert [int(c.stem[5:]) for c in checkpoints(out)][-1:] == ([kept] if kept else [])
    train(data, out, resume=True, **SETTINGS)
    assert result(out) == unbroken


def test_a_full_disk_leaves_the_last_good_checkpoint(data, unbroken, tmp_path):
    out = tmp_path / "run"

    def full_after(n):  # a file can have no more than n bytes from here on, as on a disk with n bytes left
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    calls, real = [], os.replace

    def replace(a, b):
        real(a, b)
        if str(b).endswith("step-000012.safetensors"): full_after(20_000)()
        calls.append(str(b))

    os.replace = replace
    try:
        with pytest.raises(CannotSave, match=r"step-000018.safetensors: cannot be saved, the disk is full; what stood there before is untouched"):
            train(data, out, **SETTINGS)
    finally:
        os.replace = real
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [c.stem for c in checkpoints(out)] == ["step-000006", "step-000012"]
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["step-000006.safetensors", "step-000012.safetensors"]
    train(data, out, resume=True, **SETTINGS)
    assert result(out) == unbroken
