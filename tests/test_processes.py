"""`accelerate launch` with two processes gives the loss curve of one, and an error ends both. The file is also the script that is launched."""
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from semiml.core import BadInput, CannotSave, seed_for
from semiml.train import checkpoints, drawn, fit, ranks, read_log

SETTINGS = dict(lr=1e-2, warmup=3, precision="no", checkpoint_every=4, log_every=1, progress=False)
STEPS = 12


class Net(nn.Module):
    "Two layers on a fixed regression, with noise in the loss that belongs to the sample"
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))

    def loss(self, batch):
        x = batch["x"] + .1 * drawn(torch.randn_like, batch["x"])
        error = self.net(x) - batch["more"][0]
        return {"square": error.square().mean(), "absolute": .1 * error.abs().mean()}

    def notes(self): return {"process": ranks()[0]}


class Points:
    def __init__(self, n=8, unplugged=None): self.n, self.unplugged = n, unplugged

    def __getitem__(self, step):
        if step == self.unplugged: raise InterruptedError
        x = torch.randn(self.n, 2, generator=torch.Generator().manual_seed(seed_for(0, "x", step)))
        return {"x": x, "more": (torch.sin(2 * x[:, :1]) * x[:, 1:], None)}


class Full(Points):
    "After three steps no file may have more than 1,000 bytes, as on a disk that is full"
    def __getitem__(self, step):
        if step == 3: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().__getitem__(step)


class Lopsided(Net):
    "Not a number, in the last process only"
    def loss(self, batch): return {"square": super().loss(batch)["square"] * (float("nan") if ranks()[0] == ranks()[1] - 1 else 1)}


class Conv(nn.Module):
    "The parts of a segmentation network that `semisup` uses"
    def __init__(self, norm):
        super().__init__()
        torch.manual_seed(0)
        # a bias before batch norm gets rounding errors for a gradient
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=isinstance(norm, nn.Identity)), norm, nn.ReLU())
        self.segmentation_head = nn.Conv2d(8, 2, 1)

    pretrained, settings = False, {}
    def encoder(self, x): return [x, x, self.body(x)]
    def decoder(self, f): return f[2]
    def forward(self, x): return self.segmentation_head(self.body(x))


class Blobs:
    "Simulated images, as a data set for the DDPM"
    names = [f"blobs{i}" for i in range(4)]
    def __len__(self): return 4

    def __getitem__(self, i):
        from semiml.micrograph import Micrograph
        return Micrograph(np.random.default_rng(i).normal(128, 30, (48, 64)).astype(np.float32), name=self.names[i])


def runs(out):
    "All runs, in one process or in those that were launched"
    from semiml.ddpm import patches
    from semiml.sesami.model import build
    from semiml.sesami.train import train as sesami
    from semiml.segnet import Crops, Supervised, deeplab
    from semiml.semisup.method import SemiSupervised, Views
    from semiml.semisup.train import train as semisup
    fit(Net(), Points(), STEPS, out/"whole", **SETTINGS)
    try: fit(Net(), Points(unplugged=7), STEPS, out/"broken", **SETTINGS)
    except InterruptedError: pass
    fit(Net(), Points(), STEPS, out/"broken", resume=True, **SETTINGS)
    patches.train(Blobs(), out/"ddpm", "ci", pixels=6144, steps=STEPS, **SETTINGS | dict(lr=1e-3))
    rng = np.random.default_rng(0)
    from semiml.semssl.pretrain import pretrain
    tiny = dict(model_name="vit_tiny_patch16_224", patch_size=8, embed_dim=16, depth=1, num_heads=2)
    pretrain(rng.integers(0, 255, (16, 2, 16, 16), np.uint8), out/"semssl", "ci", STEPS, 8, tiny, groups=np.arange(16) // 2, **SETTINGS)
    masks = [(rng.random((6, 6)) < .4).repeat(8, 0).repeat(8, 1).astype(np.uint8) for _ in range(8)]
    images = [m * 50. + 100 + rng.normal(0, 10, m.shape) for m in masks]
    cutmix = Views(images[:2], masks[:2], images[2:], 4, 4, (32, 32), ("", "colour"), cutmix=True)
    fit(SemiSupervised(Conv(nn.Identity()), 2, tau=0.), cutmix, 3, out/"cutmix", **SETTINGS)
    masks[0][:, :16] = masks[5][8:] = 255  # what nobody knows: more of it in one process than in the other
    sesami(images, masks, out/"sesami", build("small", 64), scale="ci", steps=STEPS, objects=4, **SETTINGS | dict(lr=1e-3))
    semisup(images[:4], masks[:4], images[4:], 2, out/"semisup", "proposed", "ci", STEPS, 4, 4, 32, tau=.6, net=Conv(nn.BatchNorm2d(8)), **SETTINGS)
    semisup(images[:4], masks[:4], images[4:], 2, out/"deeplab", "unimatch", "ci", 1, 4, 4, 32, tau=0., net=deeplab(2, weights=False), **SETTINGS)
    net = fit(Supervised(Conv(nn.BatchNorm2d(8))), Crops(images, masks, 8, (32, 32)), STEPS, out/"batch_norm", **SETTINGS)
    (out/f"batch_norm-{ranks()[0]}.json").write_text(json.dumps({k: v.tolist() for k, v in net.state_dict().items()}))


def errors(out):
    "What cannot be done, in the words that each process hears"
    from semiml.ddpm import patches
    said = {}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, method, batches in (("whole", Net(), Points()), ("odd", Net(), Points(n=7)), ("nan", Lopsided(), Points()), ("full", Net(), Full())):
        try: fit(method, batches, STEPS, out/name, **SETTINGS | dict(log_every=99))
        except (BadInput, CannotSave) as e: said[name] = [type(e).__name__, str(e)]
        finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for name, how in dict(minutes=dict(minutes=1), stages=dict(resume=True)).items():
        (out/name).mkdir(exist_ok=True)
        if "resume" in how: (out/name/"config.json").write_text('{"stages": [{"batch": 3, "steps": 9}]}')
        try: patches.train(Blobs(), out/name, "ci", progress=False, **how)
        except BadInput as e: said[name] = [type(e).__name__, str(e)]
    (out/f"said-{ranks()[0]}.json").write_text(json.dumps(said))


def launch(*args):
    # without a GPU `--multi_gpu` starts processes on the CPU; `--cpu` would start a single one
    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0".split()
    env = os.environ | dict(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", TQDM_DISABLE="1")
    return subprocess.run([sys.executable, "-m", "accelerate.commands.launch", *flags, __file__, *map(str, args)], env=env, capture_output=True,
                          text=True, timeout=240)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    one, two = (tmp_path_factory.mktemp(n) for n in ("one", "two"))
    runs(one)
    done = launch(two)
    (two/"stderr").write_text(done.stderr)
    assert (two/"said-0.json").exists() and done.returncode == 1, done.stderr  # the last thing that the script does is an error
    return one, two


def curve(run, key="loss"): return np.array([r[key] for r in read_log(run)])


@pytest.mark.parametrize("run", ["whole", "broken", "ddpm", "sesami", "semisup", "semssl"])
def test_two_processes_give_the_curve_of_one(both, run):
    one, two = (out/run for out in both)
    # SeSAMI's norms are near 0.01, and float32 sums of another order moved one by 8e-7
    for key, rtol, atol in (("loss", 1e-4, 0), ("grad_norm", 1e-4, 1e-6), ("lr", 1e-9, 0)):
        np.testing.assert_allclose(curve(two, key), curve(one, key), rtol=rtol, atol=atol)
    if run == "semssl": np.testing.assert_allclose(curve(two, "contrast"), curve(one, "contrast"), rtol=1e-4)  # negatives of both processes
    if run in ("whole", "broken"):
        for key in ("square", "absolute"): np.testing.assert_allclose(curve(two, key), curve(one, key), rtol=1e-4)
        assert curve(one)[-1] < .9 * curve(one)[0]
    assert curve(one, "step").tolist() == curve(two, "step").tolist() and len(curve(one)) > 9
    assert [json.loads((out/run/"config.json").read_text())["provenance"]["processes"] for out in both] == [1, 2]
    assert [c.name for c in checkpoints(one)] == [c.name for c in checkpoints(two)]


def test_the_weights_are_those_of_one_process(both):
    from safetensors.torch import load_file
    one, two, broken = (load_file(checkpoints(p)[-1]) for p in (both[0]/"whole", both[1]/"whole", both[1]/"broken"))
    for k in one:
        torch.testing.assert_close(two[k], one[k], rtol=1e-4, atol=1e-5)
        assert torch.equal(broken[k], two[k])  # stopped and resumed in two processes: bit for bit
    assert set(curve(both[1]/"whole", "process")) == {0}  # the main process wrote the log


def test_pseudo_labels_come_from_the_other_process_too(both):
    one, two = (out/"cutmix" for out in both)
    for key in ("cross_entropy", "strong"): np.testing.assert_allclose(curve(two, key)[0], curve(one, key)[0], rtol=1e-4)


def test_deeplab_starts_with_the_loss_of_one_process(both):
    # later it goes its own way, in one process too: fifty layers of batch norm, not trained yet, make of a change of 1e-7 in the weights one of 1e-3 in the next loss
    one, two = ([json.loads(r) for r in (out/"deeplab"/"log.jsonl").read_text().splitlines()][0] for out in both)
    assert one.keys() == two.keys() >= {"cross_entropy", "dice", "strong", "features", "share"}
    for key in ("cross_entropy", "dice", "strong", "features"): np.testing.assert_allclose(two[key], one[key], rtol=1e-4)
    np.testing.assert_allclose(two["grad_norm"], one["grad_norm"], rtol=.05)


def test_batch_norm_is_that_of_the_whole_batch(both):
    one, two = (curve(out/"batch_norm") for out in both)
    np.testing.assert_allclose(two, one, rtol=1e-4)
    weights = [json.loads((out/f"batch_norm-{rank}.json").read_text()) for out, rank in ((both[0], 0), (both[1], 0), (both[1], 1))]
    assert weights[1] == weights[2] and weights[0].keys() == weights[1].keys()  # statistics, too, are the same in all processes at the end
    for k, v in weights[0].items(): np.testing.assert_allclose(weights[1][k], v, rtol=1e-4, atol=1e-4)
    assert max(one[-1], two[-1]) < .9 * min(one[0], two[0])


def test_all_processes_hear_the_same_sentence(both):
    said = [json.loads((both[1]/f"said-{rank}.json").read_text()) for rank in (0, 1)]
    assert said[0] == said[1]
    assert {k: v[0] for k, v in said[0].items()} == dict(whole="BadInput", odd="BadInput", nan="BadInput", full="CannotSave", minutes="BadInput",
                                                         stages="BadInput")
    assert "already holds a run" in said[0]["whole"][1] and "the loss became nan at step 1" in said[0]["nan"][1]
    assert "cannot be saved, the disk is full" in said[0]["full"][1]
    assert "give steps instead" in said[0]["minutes"][1] and "a batch of 3, which 2 processes cannot share" in said[0]["stages"][1]
    assert "a batch of 7 samples cannot be shared equally by 2 processes" in said[0]["odd"][1]


def test_an_error_that_nobody_catches_ends_both_processes(both):
    sentence = f"BadInput: {both[1]/'whole'}: already holds a run; resume it, or choose another output folder"
    assert (both[1]/"stderr").read_text().count(sentence) == 2
    assert len(curve(both[1]/"whole")) == STEPS


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    runs(folder)
    errors(folder)
    fit(Net(), Points(), STEPS, folder/"whole", **SETTINGS)
