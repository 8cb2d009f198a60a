"""Small valid files of every kind that semiml reads, and how it reads them, for `tools/fuzz.py`: made by the project, and real ones from the folder SEMIML_DATA."""
import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from fuzz import Target
from semiml import cli
from semiml.core import BadInput, atomic_write
from semiml.datasets import create, open_dataset
from semiml.micrograph import Micrograph, read, read_mask, write, write_mask
from semiml.public import PUBLIC, decode_colours, decoded_pixels, unpack
from semiml.train import checkpoints, fit, read_log, read_tensors

RNG = np.random.default_rng(0)
GRAY = (RNG.integers(0, 60, (48, 64)) + 120 * (np.arange(64) // 8 % 2)).astype(np.uint8)
MASK = (np.arange(64) // 8 % 3 * np.ones((48, 1), int)).astype(np.uint8)
TINY = dict(model_name="vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2)


def command(*words):
    "A command line in this process: what it says on exit code 2 as `BadInput`; another code must be one that is documented."
    with contextlib.redirect_stderr(io.StringIO()) as said: code = cli.main([str(w) for w in words])
    if code == 2: raise BadInput(said.getvalue().rpartition("semiml: ")[2].removesuffix("\n"))
    assert code in (0, 1), f"exit code {code}"


# --- images and masks

def ser(a):
    "A TIA series file with one 8-bit image."
    dim = struct.pack("<IddII", 1, 0., 1., 0, 6) + b"Number" + struct.pack("<I", 0); head = 30 + len(dim)
    body = struct.pack("<ddIddIHII", 0., 2e-9, 0, 0., 2e-9, 0, 1, a.shape[1], a.shape[0]) + a[::-1].tobytes()
    return struct.pack("<HHHIIIIII", 0x4949, 0x0197, 0x0210, 0x4122, 0x4152, 1, 1, head, 1) + dim + struct.pack("<II", head + 8, head + 8
            + len(body)) + body + struct.pack("<HHI", 0x4152, 0, 0)


def image_files(d):
    d.mkdir(parents=True)
    write(d/"a.png", Micrograph(GRAY, .7)); write(d/"b.png", Micrograph(GRAY * 200., .7))
    write(d/"c.tif", Micrograph(GRAY / 7., .7)); write(d/"d.tif", Micrograph(GRAY, (.5, .7), "TEM"))
    for form in ("bmp", "jpg"): Image.fromarray(GRAY).save(d/f"e_{form}.{form}")
    Image.fromarray(GRAY).save(d/"f.tif", compression="tiff_lzw")
    for name, kw in dict(zlib=dict(compression="zlib", rowsperstrip=8), tiles=dict(tile=(16, 16)), big=dict(bigtiff=True), be=dict(byteorder=">")).items():
        tifffile.imwrite(d/f"g_{name}.tif", GRAY, **kw)
    tifffile.imwrite(d/"h_ome.tif", np.stack([GRAY] * 3), ome=True, metadata=dict(axes="ZYX", PhysicalSizeX=.7, PhysicalSizeY=.7))
    zeiss = "\r\n".join(["", *"0\r\n0\r\n0".split(), "5.8e-09", "AP_PIXEL_SIZE", "Pixel Size = 5.825 nm", "AP_WIDTH", "Width = 5.965 \u00b5m",
                         "AP_ACTUALKV", "EHT =  5.00 kV", "DP_IMAGE_STORE", "Store resolution = 64 * 48", ""])
    tifffile.imwrite(d/"i_zeiss.tif", GRAY, extratags=[(34118, "s", 0, zeiss.encode("cp1252"), True)])
    ini = "[Beam]\r\nHV=5000\r\nScan=EScan\r\n[EScan]\r\nPixelWidth=1e-9\r\nPixelHeight=1e-9\r\n[Image]\r\nResolutionX=64\r\nResolutionY=40\r\n[PrivateFei]\r\nDatabarHeight=8\r\n"
    tifffile.imwrite(d/"j_fei.tif", GRAY, extratags=[(34682, "s", 0, ini, True)])
    xml = '<Metadata><BinaryResult><PixelSize><X unit="nm">1.5</X><Y unit="nm">1.5</Y></PixelSize></BinaryResult><databarHeight>8</databarHeight></Metadata>'
    tifffile.imwrite(d/"k_xml.tif", GRAY, extratags=[(34683, "s", 0, xml, True)])
    tifffile.imwrite(d/"l_gatan.tif", GRAY, extratags=[(65003, "s", 0, "nm", True), (65004, "s", 0, "nm", True), (65009, "f", 1, .5, True),
                                                       (65010, "f", 1, .5, True)])
    for n, text in dict(m="[SemImageFile]\r\nDataSize=64x40\r\nPixelSize=0.99\r\nAcceleratingVoltage=1000 Volt\r\nMagnification=50000\r\n",
                        n="$CM_FORMAT 1\r\n$CM_ACCEL_VOLT 5.00\r\n$SM_MICRON_BAR 32\r\n$SM_MICRON_MARKER 100nm\r\n$CM_FULL_SIZE 64 40\r\n").items():
        Image.fromarray(GRAY).save(d/f"{n}.tif"); (d/f"{n}.txt").write_text(text)
    (d/"o.ser").write_bytes(ser(GRAY))
    from rsciio import emd
    axes = [dict(name=n, size=s, index_in_array=i, scale=.5, offset=0., units="nm", navigate=False, _type="UniformDataAxis") for i,
            (n, s) in enumerate((("y", 48), ("x", 64)))]
    emd.file_writer(str(d/"p.emd"), dict(data=GRAY, axes=axes, metadata=dict(General=dict(title="a"), Signal={}), original_metadata={}, attributes={},
                                         package_info={}))


def read_image(path, rng):
    if path.suffix == ".txt" and path.with_suffix(".tif").exists(): path = path.with_suffix(".tif")  # its sidecar was spoiled
    m = read(path, crop_data_bar=rng.random() < .5, frame=0 if rng.random() < .3 else None)
    assert m.pixels.ndim == 2 and np.isfinite(m.pixels).all() and m.pixels.dtype == np.float32
    if m.pixel_size: assert min(m.pixel_size) > 0


def mask_files(d):
    d.mkdir(parents=True)
    write_mask(d/"a.png", MASK, 3); Image.fromarray(MASK).save(d/"b.png")
    Image.fromarray(MASK > 1).save(d/"c.png"); Image.fromarray(np.dstack([MASK * 80] * 3)).save(d/"d.png")


def png_repair(d):
    "The checksums of chunks that can still be found, as one would set them who edits the pixels."
    for p in d.glob("*.png"):
        b, at = bytearray(p.read_bytes()), 8
        while at + 12 <= len(b) and (end := at + 8 + int.from_bytes(b[at:at + 4], "big")) + 4 <= len(b):
            b[end:end + 4] = zlib.crc32(b[at + 4:end]).to_bytes(4, "big"); at = end + 4
        p.write_bytes(b)


def read_masks(path, rng):
    if rng.random() < .6: m = read_mask(path, 3 if rng.random() < .7 else None)
    else: m = decode_colours(decoded_pixels(path), [[0, 0, 0], [255, 0, 0], [0, 0, 255]], overlay=rng.random() < .5)
    assert m.ndim == 2 and m.dtype == np.uint8


def gds_files(d):
    from semiml.sim.layout import design, write_gds
    d.mkdir(parents=True); write_gds(design("lines", 1), d/"a.gds"); write_gds(design("contacts_square", 1), d/"b.gds")


def read_design(path, rng):
    from semiml.sim.layout import read_gds
    read_gds(path)


def real_files(d, folder: Path):
    d.mkdir(parents=True)
    for p in (folder/"vendor_formats").glob("*.dm3"): shutil.copyfile(p, d/p.name)
    with zipfile.ZipFile(folder/"vendor_formats"/"tiff_Zeiss_SEM.zip") as z: (d/"zeiss.tif").write_bytes(z.read("test_tiff_Zeiss_SEM_512pix.tif"))
    for p in (folder/"super1"/"train"/"spot3_0d_3.png", folder/"super1"/"test"/"spot2_0d_0.png"): shutil.copyfile(p, d/p.name)
    sem = Image.open(folder/"prefab_soi"/"sem"/"random_lpass_0.05_1.png"); sem.crop((0, 0, 400, 300)).save(d/"prefab.png")


# --- folders and settings

def set_files(d):
    create(d/"set", {f"i{k}": GRAY for k in range(4)}, {f"i{k}": MASK for k in range(4)}, ["a", "b", "c"], .7,
           {f"i{k}": f"w{k // 2}/l{k}" for k in range(4)}, "A", {f"i{k}": "lines" for k in range(4)})


def read_dataset(path, rng):
    ds = open_dataset(path.parent, masks=None, allow_mixed_pixel_size=rng.random() < .3, check=rng.random() < .5)
    if ds.groups and len(set(ds.groups)) > 1: ds.split(.5)
    ds.stack(32)


def pair_files(d):
    for part in ("low", "high"):
        (d/part).mkdir(parents=True)
        for k in range(4): write(d/part/f"s{k}.png", Micrograph(np.roll(GRAY, k), 2. if part == "low" else .5))
    (d/"labels.csv").write_text("name,label,device,wafer,site,time,pattern\n"
                                + "".join(f"s{k},{'void' if k % 2 else ''},A,w{k // 2},x{k},2026-03-0{k + 1},lines\n" for k in range(4)))


def read_pairs(path, rng):
    from semiml.semssl import pairs
    p = pairs.open_pairs(path.parent); p.targets(); pairs.groups(p)
    if rng.random() < .5: pairs.split_time(p, .5)
    else: pairs.split_wafers(p, .5)
    pairs.stack(p, 16)


class Line(torch.nn.Module):
    def __init__(self): super().__init__(); torch.manual_seed(0); self.net = torch.nn.Linear(2, 1); self.register_buffer("seen", torch.zeros(1))
    def loss(self, batch): return {"square": self.net(batch["x"]).square().mean()}


class Points:
    def __getitem__(self, step): return {"x": torch.full((4, 2), float(step))}


RUN = dict(lr=1e-2, warmup=2, precision="no", checkpoint_every=2, log_every=1, progress=False,
           config=dict(stages=[dict(level=0, size=[4, 4], batch=2, steps=6)], data=dict(root="x")))


def resume(path, rng):
    from semiml.ddpm.patches import resumed_stages
    root = next(p for p in path.parents if (p/"checkpoints").exists()); read_log(root); resumed_stages(root)
    for p in checkpoints(root): read_tensors(p)
    net = Line(); fit(net, Points(), 6, root, resume=True, **RUN)
    # a damaged number in a whole file cannot be told from a good one
    assert all(torch.isfinite(p).all() for p in net.parameters()) or path.suffix == ".safetensors"


def drift_files(d):
    from semiml.monitor import drift, profile
    d.mkdir(parents=True); rng = np.random.default_rng(1)
    lot = lambda k, n=4: [np.clip(np.kron(np.tile([60, 160], (1, 6)), np.ones((96, 8))) + rng.normal(0, 12, (96, 96)) + k % 3, 0, 255).round()
                          for _ in range(n)]
    for where, lots in (("ref", range(6)), ("new", (7,))):
        for k in lots:
            for i, a in enumerate(lot(k)): write(d/where/f"lot{k}"/f"i{i}.png", Micrograph(a, 1.))
    atomic_write(d/"profile.json", json.dumps(profile._plain(drift.fit_folder(d/"ref")))); shutil.rmtree(d/"ref")
    command("drift", "check", d/"profile.json", d/"new", "--state", d/"state.json", "--out", d/"seen.jsonl")
    state = json.loads((d/"state.json").read_text()); atomic_write(d/"state.json", json.dumps(state | dict(lots=["lot1"]))); (d/"seen.jsonl").unlink()


def read_drift(path, rng):
    d = path.parent; shutil.copyfile(d/"state.json", d/"s.json")
    command("drift", "check", d/"profile.json", d/"new", "--state", d/"s.json", "--out", d/"out.jsonl")


def gate_files(d):
    groups = {f"i{k}": f"l{k}" for k in range(6)}
    create(d/"hold", {n: np.roll(GRAY, 3 * k, 0) for k, n in enumerate(groups)}, {n: MASK for n in groups}, ["a", "b", "c"], 1., groups)
    for name, m in (("old", np.where(RNG.random(MASK.shape) < .2, 0, MASK)), ("new", MASK)):
        for n in groups: write_mask(d/name/f"{n}.png", m, 3)
    command("gate", "init", d/"reg", "--hold-out", d/"hold", "--by", "x", "--comparisons", "1")
    command("gate", "check", d/"reg", d/"old", "--by", "x", "--promote"); command("gate", "check", d/"reg", d/"new", "--by", "x")
    rec = json.loads((d/"reg"/"holdout.json").read_text()); atomic_write(d/"reg"/"holdout.json", json.dumps(rec | dict(data="HOLD"), indent=1)); gate_repair(d)


def gate_repair(d):
    "The record's own checksum, as one would set it who edits the record."
    from semiml.monitor.gate import _sha
    p = d/"reg"/"holdout.json"; rec = json.loads(p.read_text())
    rec["data"] = str((d/"hold").resolve()) if isinstance(rec.get("data"), str) else rec.get("data")
    p.write_text(json.dumps(rec | dict(sha256=_sha({k: v for k, v in rec.items() if k not in ("sha256", "by", "when")}))))


def read_gate(path, rng):
    d = next(p for p in path.parents if (p/"hold").exists()); gate = d/"reg"
    with contextlib.suppress(ValueError, AttributeError):  # what it is spoiled to may be no JSON at all
        if b"HOLD" in (gate/"holdout.json").read_bytes(): gate_repair(d)  # the folder has moved
    command("gate", "history", gate); command("gate", "check", gate, d/"new", "--by", "x", *["--promote"] * (rng.random() < .5))


def pool_files(d):
    for n in ("a", "b"): write_mask(d/"masks"/f"{n}.png", MASK, 3)
    (d/"log.jsonl").write_text("".join(json.dumps(dict(image=n, action="accepted", material=0, score=.9, clicks=1, px=30, changed_px=0, iou=1.))
                                       + "\n" for n in ("a", "b")))
    atomic_write(d/"dataset.json", json.dumps(dict(classes=["a", "b", "c"])))
    create(d/"pics", {n: np.roll(GRAY, k) for k, n in enumerate("ab")}); command("gate", "collect", d/"pool", d, "--images", d/"pics", "--by", "x")
    atomic_write(d/"pool"/"state.json", json.dumps(dict(at=1.7e9, lines=1)))


def read_pool(path, rng):
    d = next(p for p in path.parents if (p/"pics").exists())
    command("gate", "due", d/"pool", "--review", d, "--before", d); command("gate", "collect", d/"pool", d, "--images", d/"pics", "--by", "x")


def prompt_files(d):
    atomic_write(d/"prompts.json", json.dumps({"i0": [{"points": [[3, 4], [5, 6]], "labels": [1, 0], "class": 0}, {"box": [1, 2, 30, 40], "class": 1}]}))


def read_prompts(path, rng):
    from semiml.sesami.command import read_prompts
    for each in read_prompts(path).values():
        for p, _ in each: p.check(GRAY.shape)


def cell_files(d):
    from semiml.reproduce import cell, once
    for s in range(2):
        once(d/"table1"/f"SAM_{s}.json", lambda: cell("table1", "SAM", s, "ci", "simulated", {"all/avg": .7 + s, "all/min": .1}, dict(steps=3), 1.))
    (d/"votes.jsonl").write_text("".join(json.dumps(dict(test="ab", seed=1, of=[4, 4, 3], pair=k, vote="left", expert="x", time=1.)) + "\n" for k in range(3)))


def read_results(path, rng):
    from semiml.ddpm.blind import read_votes, score
    from semiml.reproduce import write_summary
    if path.suffix == ".jsonl": score(read_votes(path)[0])
    else: write_summary(path.parent.parent)


# --- models

def model_files(d):
    from semiml.ddpm import guide
    from semiml.ddpm.model import PatchDDPM, save
    from semiml.segnet import deeplab, save as save_net
    from semiml.semssl import classify
    from semiml.semssl.model import encoder, save_encoder
    from semiml.sesami.lora import add_lora, export, save_adapter
    from semiml.sesami.model import build, load
    torch.manual_seed(0); ddpm = PatchDDPM((32, 32), 2, (0, 255), (1, 1), (8, 16), train_names=["a"]); save(ddpm, d/"ddpm")
    save_net(deeplab(3, "tu-mobilenetv3_small_050", weights=False), d/"segnet", ["a", "b", "c"])
    save_encoder(encoder(TINY), d/"encoder"); x = RNG.integers(0, 255, (8, 2, 16, 16), np.uint8)
    classify.train(x, np.arange(8) % 2, ["x", "y"], d/"c", encoder(TINY), steps=1, n=4, precision="no", progress=False)
    (d/"c"/"model").rename(d/"classifier"); shutil.rmtree(d/"c")
    guide.save_classifier(guide.NoisyClassifier({"process": ["A", "B"]}, {}, guide.of_model(ddpm), channels=(8, 16)), d/"guide")
    export(build("small", image_size=64), d/"sam"/"small.pt")
    save_adapter(add_lora(load(d/"sam"/"small.pt", image_size=64), 2, train_prompt=True), d/"adapter")
    torch.save(encoder(TINY).state_dict(), d/"timm.pth")


def adapter_repair(d):
    "The checksums of the adapter's files, as one would set them who edits the files."
    p = d/"adapter"/"semiml.json"; meta = json.loads(p.read_text())
    p.write_text(json.dumps(meta | dict(files={k: hashlib.sha256((d/"adapter"/k).read_bytes()).hexdigest()[:16] for k in meta["files"]})))


def guide_repair(d):
    from safetensors.torch import load_file, save_file
    save_file(load_file(d/"guide"/"classifier.safetensors"), d/"guide"/"classifier.safetensors", metadata={"config": (d/"guide"/"classifier.json").read_text()})


def read_model(path, rng):
    d = next(p for p in path.parents if (p/"timm.pth").exists() or p == path.parent and path.stem == "timm")
    match path.relative_to(d).parts[0]:
        case "ddpm": from semiml.ddpm.model import load; load(d/"ddpm")
        case "segnet": from semiml.segnet import load; load(d/"segnet")
        case "encoder": from semiml.semssl.model import load_encoder; load_encoder(d/"encoder")
        case "classifier": from semiml.semssl.classify import load, predict; predict(load(d/"classifier"), np.zeros((1, 2, 16, 16), np.uint8))
        case "guide": from semiml.ddpm.guide import load_classifier; load_classifier(d/"guide", None)
        case "sam": from semiml.sesami.model import load; load(path, image_size=64)
        case "adapter": from semiml.sesami.lora import load_adapter; load_adapter(d/"sam"/"small.pt", d/"adapter", image_size=64)
        case _: # a timm checkpoint to begin with
            from semiml.segnet import deeplab
            from semiml.semssl.model import encoder
            encoder(TINY, weights=path) if rng.random() < .7 else deeplab(2, "tu-mobilenetv3_small_050", weights=path)


# --- archives and shards

def archive_files(d):
    d.mkdir(parents=True); png = io.BytesIO(); Image.fromarray(GRAY).save(png, "PNG")
    for how, name in ((zipfile.ZIP_STORED, "a.zip"), (zipfile.ZIP_DEFLATED, "b.zip"), (zipfile.ZIP_LZMA, "c.zip"), (zipfile.ZIP_BZIP2, "d.zip")):
        with zipfile.ZipFile(d/name, "w", how) as z:
            for k in range(3): z.writestr(f"images/{k}.png", png.getvalue()[:500])
    for mode, name in (("w", "e.tar"), ("w:gz", "f.tar.gz"), ("w:bz2", "g.tar.bz2"), ("w:xz", "h.tar.xz")):
        with tarfile.open(d/name, mode) as t:
            for k in range(3): add(t, f"images/{k}.png", png.getvalue()[:500])


def add(tar, name, data=b"", kind=tarfile.REGTYPE, link=""):
    m = tarfile.TarInfo(name); m.size, m.type, m.linkname = len(data), kind, link; tar.addfile(m, io.BytesIO(data))


def read_archive(path, rng):
    out = path.parent/"deep"/"out"
    try: unpack(path, out)
    finally:
        odd = [p for p in path.parent.rglob("*") if p.is_symlink() or "evil" in p.name and not p.is_relative_to(out)]
        assert not odd and sum(p.stat().st_size for p in path.parent.rglob("*")) < 1 << 27, f"written outside, or too much: {odd}"


def hostile_archives(d):
    "Those that want to be elsewhere, to be something else, or to be much more."
    d.mkdir(parents=True); n = 0

    def tar(*members):
        nonlocal n; n += 1
        with tarfile.open(d/f"t{n:02d}.tar", "w") as t:
            for m in members: add(t, *m)

    def zipped(*entries, **how):
        nonlocal n; n += 1
        with zipfile.ZipFile(d/f"z{n:02d}.zip", "w", zipfile.ZIP_DEFLATED) as z:
            for name, data in entries:
                i = zipfile.ZipInfo(name); i.external_attr = how.get("mode", 0) << 16; i.compress_type = zipfile.ZIP_DEFLATED; z.writestr(i, data)
    for name in ("../evil", "../../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:evil", "//evil", "a/./../../evil", "evil\0.png", "a\nb"):
        tar((name, b"x")); zipped((name, b"x"))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        for to in ("/etc", "..", "../../evil", "out"): tar(("out", b"", kind, to), ("out/evil", b"x"))
    for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.CONTTYPE): tar(("dev", b"", kind))
    for kind in (0o120777, 0o010644, 0o020644, 0o060644): zipped(("out", b"/etc"), ("out/evil", b"x"), mode=kind)
    zipped(("big", bytes(1 << 27)))
    zipped(*((f"{k}", bytes(1 << 20)) for k in range(80))); tar(("a", b"x"), ("a", b"y")); zipped(("a", b"x"), ("A", b"y")); tar(("a", b"x"), ("a/b", b"y"))
    with tarfile.open(d/"bomb.tar.xz", "w:xz") as t: add(t, "big", bytes(1 << 27))
    with tarfile.open(d/"bomb.tar.gz", "w:gz") as t: add(t, "big", bytes(1 << 27))


class Evil:
    "Would run a command when a pickle of it is loaded."
    def __init__(self, where): self.where = str(where)
    def __reduce__(self): return os.system, (f"touch {self.where}",)


def hostile_models(d):
    "Pickles that would run a command, under the names of every kind of checkpoint."
    model_files(d); bad = Evil("evil")
    for name in ("sam/small.pt", "timm.pth"): torch.save({"w": bad}, d/name)
    for p in d.rglob("*.safetensors"): p.write_bytes(pickle.dumps(bad))
    create = dict(json.loads((d/"encoder"/"config.json").read_text())["create"], checkpoint_path=str(d/"evil.pth"))
    torch.save({"w": bad}, d/"evil.pth")
    for k in ("encoder", "classifier"): c = json.loads((d/k/"config.json").read_text()); (d/k/"config.json").write_text(json.dumps(c | dict(create=create)))


def shard_files(d):
    from semiml.semssl.shards import write_shards
    write_shards((dict(name=f"s{k}", low=np.roll(GRAY, k), high=GRAY, label="x" if k % 2 else "", device="A", wafer="w", site=str(k))
                  for k in range(6)), d/"s", side=16, per_shard=3)


def read_shards(path, rng):
    from semiml.semssl.shards import Batches, Shards, Stream
    d = path.parent
    if rng.random() < .5: s = Shards(d); s[np.arange(len(s))]; Batches(s, 2)[0]
    else: list(Stream(d, epochs=1, rank=0, world=1, side=16 if rng.random() < .5 else None))


# --- all of them

EXPECTED = ("holds 3 frames", "holds no image but", "unknown class", "colour or 16-bit PNG", "another model's than")  # sentences about files as they are



def targets(good: Path, real: Path | None = None) -> dict:
    "Make the files in a folder; {experiment: targets}."
    rel = lambda d, *skip: sorted(str(p.relative_to(d)) for p in d.rglob("*") if p.is_file() and not p.name.startswith(".")
                                  and not any(s in str(p) for s in skip))
    out = {}

    def make(group, name, kind, files, call, skip=(), data="simulated", **how):
        files(good/name); out.setdefault(group, []).append(Target(name, kind, call, rel(good/name, *skip), data=data, **how))
    make("images", "images", "image", image_files, read_image, rename=True, repair=png_repair); make("images", "gds", "image", gds_files, read_design)
    make("masks", "masks", "mask", mask_files, read_masks, repair=png_repair)
    make("settings", "set", "config", lambda d: (set_files(d)), read_dataset, ("images", "masks"))
    make("settings", "pairs", "config", pair_files, read_pairs, ("low", "high"))
    def run_files(d):
        fit(Line(), Points(), 4, d/"run", **RUN)
        (d/"run"/"config.json").write_text((d/"run"/"config.json").read_text().replace('"steps": 4', '"steps": 6'))
    make("settings", "run", "config", run_files, resume); make("settings", "drift", "config", drift_files, read_drift, ("new",))
    make("settings", "gate", "config", gate_files, read_gate, ("images", "new"), repair=gate_repair)
    make("settings", "pool", "config", pool_files, read_pool, ("pics", "images", "masks"))
    make("settings", "prompts", "config", prompt_files, read_prompts); make("settings", "cells", "config", cell_files, read_results)
    make("checkpoints", "models", "checkpoint", model_files, read_model, repair=lambda d: (adapter_repair(d), guide_repair(d)))
    make("hostile", "hostile_archives", "archive", hostile_archives, read_archive); make("hostile", "hostile_models", "checkpoint", hostile_models, read_model)
    make("archives", "archives", "archive", archive_files, read_archive); make("archives", "shards", "archive", shard_files, read_shards)
    if real:
        make("real images", "real", "image", lambda d: real_files(d, real), read_image, data="real:vendor_formats", rename=True, repair=png_repair)
        def annot(d):
            d.mkdir(parents=True); shutil.copyfile(real/"super1"/"train_annot"/"spot3_0d_3_mask.png", d/"a.png")
            Image.fromarray(decode_colours(decoded_pixels(d/"a.png"), PUBLIC["super1"]["info"]["palette"], True)).save(d/"b.png")
        make("real masks", "real_masks", "mask", annot, read_masks, data="real:super1", repair=png_repair)
    return out


def sound(out: dict, good: Path) -> int:
    "Read every file as it is: all must be read, else fuzzing them means nothing. It also imports what a case shall not have to import. How many they are."
    n, rng = 0, np.random.default_rng(0)
    for t in (t for name, group in out.items() for t in group if name != "hostile"):
        copy = good.parent/"sound"/t.name; shutil.rmtree(copy, ignore_errors=True); shutil.copytree(good/t.name, copy)
        for f in t.files:
            try: t.call(copy/f, rng)
            except BadInput as e:
                if not any(w in str(e) for w in EXPECTED): raise
            n += 1
            if t.kind == "archive": shutil.rmtree(copy); shutil.copytree(good/t.name, copy)
    shutil.rmtree(good.parent/"sound"); return n
