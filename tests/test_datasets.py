"""Data sets where a notebook cell cannot show it: hostile archives, broken servers, killed downloads, odd folders, and the real public sets."""
import hashlib
import io
import json
import os
import random
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import missing
from PIL import Image
from semiml import public
from semiml.core import BadInput
from semiml.datasets import create, open_dataset
from semiml.micrograph import Micrograph, write
from semiml.public import PUBLIC, decoded_pixels, find_public, get, list_public, pixel_sha256, unpack

rng = np.random.default_rng(0)


def image(h=24, w=32): return rng.integers(1, 250, (h, w)).astype(np.float32)


def mask(h=24, w=32): return rng.integers(0, 3, (h, w)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    "Six images of three lamellae, with masks."
    names = [f"L{i // 2}_{i % 2}" for i in range(6)]
    create(tmp_path/"d", {n: image() for n in names}, {n: mask() for n in names}, ["a", "b", "c"], 0.5, {n: f"w/{n[:2]}" for n in names})
    return tmp_path/"d"


def tree(p): return sorted(str(q.relative_to(p)) for q in p.rglob("*"))


# --- hostile archives

def tar_of(path, *members):
    with tarfile.open(path, "w:gz") as t:
        for m, data in members: t.addfile(m, io.BytesIO(data))
    return path


def tinfo(name, kind=tarfile.REGTYPE, size=0, link=""):
    m = tarfile.TarInfo(name)
    m.type, m.size, m.linkname = kind, size, link
    return m


def zip_of(path, *entries):
    with zipfile.ZipFile(path, "w") as z:
        for name, data in entries: z.writestr(name, data)
    return path


def zlink(name):
    i = zipfile.ZipInfo(name)
    i.external_attr = (stat.S_IFLNK | 0o777) << 16
    return i


def encrypted(path):
    zip_of(path, ("a.png", b"x" * 50))
    b = bytearray(path.read_bytes())
    for sig, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)): b[b.index(sig) + at] |= 1
    path.write_bytes(b)
    return path


HOSTILE = {
    "tar climbs": lambda d: tar_of(d/"a.tar.gz", (tinfo("../evil", size=1), b"x")),
    "tar absolute": lambda d: tar_of(d/"a.tar.gz", (tinfo("/tmp/evil", size=1), b"x")),
    "tar symlink": lambda d: tar_of(d/"a.tar.gz", (tinfo("out", tarfile.SYMTYPE, link="/etc"), b""), (tinfo("out/evil", size=1), b"x")),
    "tar hard link": lambda d: tar_of(d/"a.tar.gz", (tinfo("out", tarfile.LNKTYPE, link="../../x"), b"")),
    "tar fifo": lambda d: tar_of(d/"a.tar.gz", (tinfo("pipe", tarfile.FIFOTYPE), b"")),
    "tar device": lambda d: tar_of(d/"a.tar.gz", (tinfo("dev", tarfile.CHRTYPE), b"")),
    "zip climbs": lambda d: zip_of(d/"a.zip", ("good.png", b"g"), ("images/../../evil", b"x")),
    "zip backslash": lambda d: zip_of(d/"a.zip", ("..\\evil", b"x")),
    "zip drive": lambda d: zip_of(d/"a.zip", ("C:/evil", b"x")),
    "zip absolute": lambda d: zip_of(d/"a.zip", ("/evil", b"x")),
    "zip link": lambda d: zip_of(d/"a.zip", (zlink("out"), "/etc")),
    "zip newline": lambda d: zip_of(d/"a.zip", ("a\nb.png", b"x")),
    "zip twins by case": lambda d: zip_of(d/"a.zip", ("a.png", b"x"), ("A.png", b"y")),
    "zip file as folder": lambda d: zip_of(d/"a.zip", ("a", b"x"), ("a/b.png", b"y")),
    "zip encrypted": lambda d: encrypted(d/"a.zip"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused(kind, tmp_path):
    (tmp_path/"in").mkdir()
    archive = HOSTILE[kind](tmp_path/"in")
    with pytest.raises(BadInput) as e: unpack(archive, tmp_path/"in"/"deep"/"out")
    assert str(archive) in str(e.value) and "\n" not in str(e.value)
    assert not [p for p in tree(tmp_path) if "evil" in p] and not Path("/tmp/evil").exists()
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


@pytest.mark.parametrize("pack", ["zip", "tar"])
def test_bombs_are_refused(pack, tmp_path):
    big = bytes(2**27)
    if pack == "tar": a = tar_of(tmp_path/"a.tgz", (tinfo("z.tif", size=len(big)), big))
    else:
        a = tmp_path/"a.zip"
        with zipfile.ZipFile(a, "w", zipfile.ZIP_DEFLATED) as z: z.writestr("z.tif", big)
    with pytest.raises(BadInput, match="absurd size"): unpack(a, tmp_path/"out")
    with pytest.raises(BadInput, match="absurd size"): unpack(zip_of(tmp_path/"m.zip", *((f"{i}", b"") for i in range(20))), tmp_path/"out", max_entries=10)
    assert not (tmp_path/"out").exists()


def test_broken_archives_give_one_sentence_and_stay_inside(tmp_path):
    good = [zip_of(tmp_path/"a.zip", *((f"images/{i}.png", os.urandom(200)) for i in range(5))),
            tar_of(tmp_path/"a.tar.gz", *((tinfo(f"images/{i}.png", size=200), os.urandom(200)) for i in range(5)))]
    with zipfile.ZipFile(tmp_path/"b.zip", "w", zipfile.ZIP_LZMA) as z: z.writestr("a.png", bytes(500))
    r, refused = random.Random(0), 0
    for g in [*good, tmp_path/"b.zip"]:
        data = g.read_bytes()
        for k in range(150):
            b = bytearray(data)
            if k % 3 == 0: b = b[:r.randrange(len(b))]
            else:
                for _ in range(r.randrange(1, 6)): b[r.randrange(len(b))] = r.randrange(256)
            (tmp_path/"broken").write_bytes(b)
            try: unpack(tmp_path/"broken", tmp_path/f"o{g.name}{k}")
            except BadInput as e: refused += 1; assert "\n" not in str(e)
    assert refused > 200


# --- servers

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *a): pass


@pytest.fixture
def web(tmp_path):
    "A folder served on the loopback, and a way to add sets to the registry for the time of the test."
    (tmp_path/"web").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path/"web")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    before = dict(PUBLIC)
    yield tmp_path/"web", f"http://127.0.0.1:{server.server_port}"
    server.shutdown(); server.server_close()
    PUBLIC.clear(); PUBLIC.update(before)


def sha(p): return hashlib.sha256(p.read_bytes()).hexdigest()


def test_get_unpacks_and_opens(web, tmp_path, monkeypatch):
    www, at = web
    buf = io.BytesIO(); Image.fromarray(image().astype(np.uint8)).save(buf, "PNG")
    z = zip_of(www/"set.zip", ("data/images/a.png", buf.getvalue()), ("data/images/b.png", buf.getvalue()), ("data/labels.csv", b"x;y"))
    PUBLIC["tiny"] = dict(files=[(f"{at}/set.zip", ".", f"sha256:{sha(z)}")], home="https://example.org", about="a", licence="b", megabytes=1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path/"cache")); monkeypatch.delenv("SEMIML_DATA", raising=False)
    with pytest.raises(BadInput, match="semiml data get tiny"): open_dataset("tiny")
    where = get("tiny", progress=False)
    assert where == find_public("tiny") and open_dataset("tiny").names == ["a", "b"]
    assert [r["here"] for r in list_public() if r["name"] == "tiny"] == [where]
    monkeypatch.setenv("SEMIML_DATA", str(tmp_path/"mine")); (tmp_path/"mine"/"tiny"/"images").mkdir(parents=True)
    write(tmp_path/"mine"/"tiny"/"images"/"own.tif", Micrograph(image()))
    assert open_dataset("tiny").names == ["own"]   # the folder the user named counts first


def test_wrong_checksums_name_both(web, tmp_path):
    www, at = web
    gray = image().astype(np.uint8); Image.fromarray(gray).save(www/"a.png")
    off = gray.copy(); off[3, 4] ^= 1
    PUBLIC["file"] = dict(files=[(f"{at}/a.png", "a.png", "sha256:" + "1" * 64)])
    PUBLIC["pixel"] = dict(files=[(f"{at}/a.png", "sem/a.png", f"pixels:{pixel_sha256(off)}")])
    for name, want, got in (("file", "1" * 64, sha(www/"a.png")), ("pixel", pixel_sha256(off), pixel_sha256(gray))):
        with pytest.raises(BadInput) as e: get(name, tmp_path/"c", progress=False)
        assert want in str(e.value) and got in str(e.value)
    assert tree(tmp_path/"c") == []


def test_absent_broken_and_cut_off_servers(web, tmp_path):
    www, at = web
    class Cut(BaseHTTPRequestHandler):
        def log_message(self, *a): pass
        def do_GET(self):
            self.send_response(200); self.send_header("Content-Length", "1000"); self.end_headers(); self.wfile.write(b"half")
    cut = ThreadingHTTPServer(("127.0.0.1", 0), Cut)
    threading.Thread(target=cut.serve_forever, daemon=True).start()
    (www/"no.png").write_bytes(b"not an image")
    for url, words in {f"{at}/gone.zip": "404", f"http://127.0.0.1:{cut.server_port}/x": "no network or the server is away",
                       "http://127.0.0.1:9/x": "no network or the server is away", f"{at}/no.png": "cannot be read as an image"}.items():
        PUBLIC["t"] = dict(files=[(url, "sem/a.png", "pixels:" + "0" * 64)])
        with pytest.raises(BadInput, match=words) as e: get("t", tmp_path/"c", progress=False)
        assert "\n" not in str(e.value) and str(e.value).startswith(url)
    PUBLIC["t"] = dict(files=[(f"{at}/no.png", ".", "sha256:" + sha(www/"no.png"))])
    with pytest.raises(BadInput, match="no.png: it is broken or no zip"): get("t", tmp_path/"c", progress=False)
    cut.shutdown(); cut.server_close()
    assert tree(tmp_path/"c") == []


def test_a_killed_download_is_no_data_set(tmp_path):
    class Slow(BaseHTTPRequestHandler):
        def log_message(self, *a): pass
        def do_GET(self):
            self.send_response(200); self.send_header("Content-Length", "9000000"); self.end_headers()
            try:
                for _ in range(600): self.wfile.write(bytes(1000)); self.wfile.flush(); time.sleep(0.05)
            except OSError: pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow); server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (f"from semiml.public import PUBLIC, get; PUBLIC['t'] = dict(files=[('http://127.0.0.1:{server.server_port}/x', '.', 'sha256:0')]); "
            f"get('t', {str(tmp_path)!r}, progress=False)")
    p = subprocess.Popen([sys.executable, "-c", code])
    end = time.time() + 60
    while not list(tmp_path.glob(".t.*/download")) and time.time() < end: time.sleep(0.1)
    assert list(tmp_path.glob(".t.*/download")), "the download never began"
    p.send_signal(signal.SIGKILL); p.wait()
    server.shutdown(); server.server_close()
    assert not (tmp_path/"t").exists()   # what is left is hidden and has another name


def test_by_hand_sets_say_where():
    for name in (n for n, s in PUBLIC.items() if "by_hand" in s):
        with pytest.raises(BadInput, match="https://doi.org") as e: get(name, progress=False)
        assert "unpack it into" in str(e.value)


# --- folders

def test_create_leaves_nothing_behind_when_it_fails(tmp_path):
    for kwargs, words in ((dict(images={"a": image(), "b": np.full((4, 4), np.nan)}), "b|NaN"),
                          (dict(images={"a": image()}, masks={"a": mask(5, 5)}), "the mask is 5 x 5"),
                          (dict(images={"a": image()}, masks={"b": mask()}), "mask without an image"),
                          (dict(images={"a": image()}, masks={"a": mask()}, classes=["one"]), "unknown class"),
                          (dict(images={"a": image(), "b": image()}, groups={"a": "w"}), "leaves out the image 'b'"),
                          (dict(images=[]), "no images"), (dict(images={"a": image()}, pixel_size_nm=0), "positive")):
        with pytest.raises(BadInput, match=words) as e: create(tmp_path/"d", **kwargs)
        assert tree(tmp_path) == [], kwargs
        assert "/new" not in str(e.value)   # the sentence names the user's folder, not the hidden one
    (tmp_path/"empty").mkdir(); create(tmp_path/"empty", [image()])
    with pytest.raises(BadInput, match="not an empty folder"): create(tmp_path/"empty", [image()])


def test_mixed_scales(folder):
    (folder/"dataset.json").unlink()
    write(folder/"images"/"L1_1.tif", Micrograph(image(), pixel_size=0.7))
    with pytest.raises(BadInput) as e: open_dataset(folder)
    assert "L1_1.tif" in str(e.value) and "L0_0.tif" in str(e.value)
    ds = open_dataset(folder, allow_mixed_pixel_size=True)
    assert ds[0].pixel_size == pytest.approx((0.5, 0.5)) and ds[3].pixel_size == pytest.approx((0.7, 0.7)) and ds.stack().pixel_size is None
    late = open_dataset(folder, check=False)   # not looked at when opened, but not let through either
    with pytest.raises(BadInput, match="L1_1.tif"): late.stack()
    (folder/"dataset.json").write_text('{"pixel_size_nm": [0.6, 0.3]}')   # calibrated: counts for all
    assert open_dataset(folder).stack((12, 16)).pixel_size == pytest.approx((1.2, 0.6))


def test_images_of_two_sizes_do_not_share_a_scale_after_resizing(tmp_path):
    ds = create(tmp_path/"d", {"a": image(24, 32), "b": image(48, 64)}, pixel_size_nm=1)
    with pytest.raises(BadInput, match="pass a size to stack"): ds.stack()
    with pytest.raises(BadInput, match="b.tif: has .* but a.tif has"): ds.stack(16)


def test_images_without_mask(folder):
    (folder/"masks"/"L2_0.png").unlink()
    with pytest.raises(BadInput, match="L2_0.tif: has no mask"): open_dataset(folder, masks=True)
    ds = open_dataset(folder)
    with pytest.raises(BadInput, match="L2_0"): ds.mask(4)
    s = ds.stack(8)
    assert (s.masks[4] == 255).all() and set(np.unique(np.delete(s.masks, 4, 0))) <= {0, 1, 2}
    assert open_dataset(folder, masks=False).stack().masks is None
    for p in (folder/"masks").iterdir(): p.unlink()
    (folder/"masks").rmdir()
    with pytest.raises(BadInput, match="has no masks"): open_dataset(folder, masks=True)


def test_odd_folders(folder, tmp_path):
    for bad, words in ((tmp_path/"nowhere", "no such folder"), (folder/"dataset.json", "is a file"), (tmp_path/"empty", "holds no images")):
        (tmp_path/"empty").mkdir(exist_ok=True)
        with pytest.raises(BadInput, match=words): open_dataset(bad)
    for junk in ("Thumbs.db", ".hidden.png", "L0_0.txt"): (folder/"images"/junk).write_bytes(b"junk")
    assert len(open_dataset(folder)) == 6
    (folder/"images"/"L9.png").write_bytes(b"junk")
    (folder/"dataset.json").unlink()
    with pytest.raises(BadInput, match="L9.png"): open_dataset(folder, masks=False)


def test_fuzzed_dataset_json_gives_one_sentence(folder):
    text, r, refused = (folder/"dataset.json").read_bytes(), random.Random(1), 0
    for k in range(300):
        b = bytearray(text)
        if k % 4 == 0: b = b[:r.randrange(len(b))]
        else:
            for _ in range(r.randrange(1, 4)): b[r.randrange(len(b))] = r.randrange(256)
        (folder/"dataset.json").write_bytes(b)
        try: open_dataset(folder, check=False)
        except BadInput as e: refused += 1; assert "\n" not in str(e) and "dataset.json" in str(e)
    for v in ([], 1, None, "x", {"classes": {}}, {"groups": []}, {"pixel_size_nm": "1"}, {"pixel_size_nm": []}, {"palette": 3}, {"palette": [[1, 2]]}):
        (folder/"dataset.json").write_text(json.dumps(v))
        with pytest.raises(BadInput, match="dataset.json"): open_dataset(folder, check=False)
    assert refused > 200


@pytest.mark.parametrize("seed", range(10))
def test_splits_never_share_a_group(tmp_path, seed):
    r = np.random.default_rng(seed)
    names = [f"i{k}" for k in range(int(r.integers(4, 12)))]
    groups = {n: f"w{r.integers(2)}/l{r.integers(3)}" for n in names} | {"i0": "w0/l0", "i1": "w1/l0"}
    ds = create(tmp_path/"d", {n: image(4, 4) for n in names}, groups=groups)
    for share in (0.05, 0.3, 0.6, 0.95):
        for level in (None, 1):
            a, b = ds.split(share, seed, level)
            key = lambda d: {"/".join(g.split("/")[:level]) for g in d.groups}
            assert len(a) and len(b) and not key(a) & key(b) and sorted(a.names + b.names) == sorted(names)
            assert ds.split(share, seed, level)[1].names == b.names


def test_a_split_without_groups_warns(tmp_path):
    ds = create(tmp_path/"d", {f"i{k}": image(4, 4) for k in range(5)})
    with pytest.warns(UserWarning, match="no groups"): a, b = ds.split()
    assert len(b) == 1


# --- the real sets

def real(name):
    try: return find_public(name)
    except BadInput as e: missing(str(e))


@pytest.mark.parametrize("name", ["prefab_soi", "super1"])
def test_real_sets_are_the_published_pixels(name):
    root = real(name)
    for _, place, want in PUBLIC[name]["files"]: assert f"pixels:{pixel_sha256(decoded_pixels(root/place))}" == want, place


def test_prefab_soi():
    real("prefab_soi")
    ds = open_dataset("prefab_soi")
    assert len(ds) == 14 and ds.masks is None and ds[0].pixels.shape == (1248, 1692) and ds.design(0).pixels.shape == (2415, 3298)
    assert ds[0].pixels.max() > 200   # gray units, as the microscope gave them
    for i in (0, 7, 13):   # each design belongs to its image: silicon is bright where it was meant to be
        sem, design = ds[i].resize((156, 212)).pixels, ds.design(i).resize((156, 212)).pixels
        other = ds.design((i + 1) % 14).resize((156, 212)).pixels
        r = lambda d: abs(np.corrcoef(sem.ravel(), d.ravel())[0, 1])
        assert r(design) > 0.6 > 0.3 > r(other)
    train, held = ds.split(0.3)
    assert len(held) == 4 and ds.stack(64).images.shape == (14, 64, 64)


def test_super1():
    real("super1")
    ds = open_dataset("super1")
    assert [len(ds.part(p)) for p in ("train", "val", "test")] == [10, 4, 4] and ds.classes == ["matrix", "secondary", "tertiary"]
    shares = np.array([np.bincount(ds.mask(i).ravel(), minlength=3)/512**2 for i in range(len(ds))])
    for i in range(len(ds)):   # where nothing was painted, the annotation shows the micrograph itself
        a, m = decoded_pixels(ds.masks[i]).astype(int), ds.mask(i)
        bare = (a == a[..., :1]).all(-1)
        assert (a[bare][:, 0] == ds[i].pixels[bare]).all() and (m[bare] == 0).mean() > 0.999
    assert 0.4 < shares[:, 0].mean() < 0.6 and 0.4 < shares[:, 2].mean() < 0.6 and 0 < shares[:, 1].mean() < 0.05
    train, held = ds.part("train").split(0.2)
    assert not {g.split("/")[1] for g in train.groups} & {g.split("/")[1] for g in held.groups}   # no spot on both sides
