"""Whatever a user points the command at: one sentence that names it, exit code 2, and nothing of theirs touched."""
import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from semiml.cli import main
from semiml.sim.tem import save, simulate

TRAIN = ["--scale", "ci", "--steps", "5", "--flips", "h", "--held-out", "0.5"]


def run(capsys, *words):
    code = main([str(w) for w in words])
    said = capsys.readouterr()
    return code, said.err.strip()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    "A data set and a finished run on it"
    d = tmp_path_factory.mktemp("good")
    save(simulate(6, seed=2, shape=(96, 128), pixel_size_nm=1.), d / "tem")
    assert main(["ddpm", "train", str(d / "tem"), *TRAIN, "--out", str(d / "run")]) == 0
    return d


@pytest.fixture
def folder(good, tmp_path):
    "A copy of the data set, to be spoiled"
    shutil.copytree(good / "tem", tmp_path / "tem")
    return tmp_path / "tem"


def spoil(folder, what):
    images = sorted((folder / "images").iterdir())
    first, gray = images[0], np.random.default_rng(0).integers(0, 255, (96, 128)).astype(np.uint8)
    png = first.with_suffix(".png")
    if what == "not an image": first.write_text("these are not pixels")
    elif what == "empty file": first.write_bytes(b"")
    elif what == "truncated": first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    elif what == "truncated png":
        Image.fromarray(gray).save(png); first.unlink()
        png.write_bytes(png.read_bytes()[: png.stat().st_size // 2])
    elif what == "NaN": tifffile.imwrite(first, np.where(gray > 250, np.nan, gray).astype(np.float32))
    elif what == "infinite": tifffile.imwrite(first, np.where(gray > 250, np.inf, gray).astype(np.float32))
    elif what == "constant": tifffile.imwrite(first, np.full((96, 128), 7, np.uint8))
    elif what == "colour": first.unlink(); Image.fromarray(np.dstack([gray, gray[::-1], gray])).save(png)
    elif what == "too small": [tifffile.imwrite(p, gray[:4, :4]) for p in images]; shutil.rmtree(folder / "masks")
    elif what == "no images": shutil.rmtree(folder / "images"); (folder / "images").mkdir()
    elif what == "mask without image": first.unlink()
    elif what == "mixed pixel sizes":
        (folder / "dataset.json").unlink()
        tifffile.imwrite(first, gray, imagej=True, resolution=(1 / 2e-3, 1 / 2e-3), metadata={"unit": "um"})
    else: raise AssertionError(what)


@pytest.mark.parametrize("what, says", [
    ("not an image", "not an image"), ("empty file", "empty"), ("truncated", "truncated"), ("truncated png", "truncated"), ("NaN", "NaN"),
    ("infinite", "infinite"),
    ("constant", "is constant"), ("colour", "gray"), ("too small", "smaller than"), ("no images", "no images"), ("mask without image", "mask"),
    ("mixed pixel sizes", "pixel size"),
])
def test_bad_images(folder, tmp_path, capsys, what, says):
    spoil(folder, what)
    code, err = run(capsys, "ddpm", "train", folder, *TRAIN, "--out", tmp_path / "run")
    assert code == 2 and err.startswith("semiml: ") and "\n" not in err and "Traceback" not in err, err
    assert says.lower() in err.lower() and ("tem" in err), err
    assert not (tmp_path / "run" / "config.json").exists()


def test_equal_channels_are_gray(folder, tmp_path):
    gray = np.random.default_rng(0).integers(0, 255, (96, 128)).astype(np.uint8)
    first = sorted((folder / "images").iterdir())[0]
    first.unlink()
    Image.fromarray(np.dstack([gray] * 3)).save(first.with_suffix(".png"))
    assert main(["ddpm", "train", str(folder), *TRAIN, "--out", str(tmp_path / "run")]) == 0


def test_a_folder_that_holds_a_run_is_left_alone(good, capsys):
    before = {p: p.read_bytes() for p in (good / "run").rglob("*") if p.is_file()}
    code, err = run(capsys, "ddpm", "train", good / "tem", *TRAIN, "--out", good / "run")
    assert code == 2 and "already holds a run" in err
    assert {p: p.read_bytes() for p in (good / "run").rglob("*") if p.is_file()} == before


def break_model(run_, how):
    unet = run_ / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    if how == "cut short": unet.write_bytes(unet.read_bytes()[:-100])
    elif how == "not weights": unet.write_bytes(b"\x80\x04K\x01." * 100)  # a pickle, which must not be run
    elif how == "no weights": unet.unlink()
    elif how == "another kind": (run_ / "model" / "semiml.json").write_text('{"format": "something else"}')
    elif how == "another size":
        config = json.loads((run_ / "model" / "semiml.json").read_text())
        (run_ / "model" / "semiml.json").write_text(json.dumps(config | {"channels": [8, 8, 8]}))
    elif how == "unfinished": shutil.rmtree(run_ / "model")


@pytest.mark.parametrize("how, says", [("cut short", "cut short"), ("not weights", "not a safetensors file"), ("no weights", "no such file"),
    ("another kind", "another kind of model"), ("another size", "weights of another model"), ("unfinished", "no finished DDPM")])
def test_a_model_that_is_not_one(good, tmp_path, capsys, how, says):
    shutil.copytree(good / "run", tmp_path / "run")
    break_model(tmp_path / "run", how)
    code, err = run(capsys, "ddpm", "sample", tmp_path / "run", "--n", 1, "--sampling-steps", 1)
    assert code == 2 and says in err and "\n" not in err, err


def test_a_checkpoint_cut_short_stops_the_resume(good, tmp_path, capsys):
    shutil.copytree(good / "run", tmp_path / "run")
    last = max((tmp_path / "run" / "checkpoints").iterdir())
    last.write_bytes(last.read_bytes()[:5000])
    code, err = run(capsys, "ddpm", "train", good / "tem", *TRAIN, "--resume", "--out", tmp_path / "run")
    assert code == 2 and last.name in err and "cut short" in err and "\n" not in err, err


@pytest.mark.parametrize("words, says", [
    (["ddpm", "train", "RUN/../nowhere", "--out", "NEW"], "no such folder"),
    (["ddpm", "train", "DATA"], "give --out FOLDER"),
    (["ddpm", "train", "DATA", *TRAIN[:-1], "no_such_image", "--out", "NEW"], "no image of that name"),
    (["ddpm", "train", "DATA", *TRAIN[:-1], "1.5", "--out", "NEW"], "between 0 and 1"),
    (["ddpm", "train", "DATA", "--scale", "ci", "--minutes", "-1", "--out", "NEW"], "positive"),
    (["ddpm", "sample", "RUN", "--size", "100x100", "--out", "NEW"], "both sides must divide"),
    (["ddpm", "sample", "RUN", "--size", "large", "--out", "NEW"], "rows x columns"),
    (["ddpm", "sample", "RUN", "--sampler", "euler", "--out", "NEW"], "dpm++, ddim or ddpm".split(",")[0]),
    (["ddpm", "sample", "RUN", "--n", "0", "--out", "NEW"], "at least 1"),
    (["ddpm", "sample", "RUN", "--out", "DATA"], "not empty"),
    (["ddpm", "evaluate", "RUN"], "samples"),
    (["report", "RUN"], "evaluation.json"),
    (["simulate", "tem", "--n", "3", "--out", "DATA"], "not an empty folder"),
    (["simulate", "tem", "--module", "fin", "--out", "NEW"], "choose one of finfet_gate"),
    (["simulate", "tem", "--process", "D", "--out", "NEW"], "choose one of A, B, C"),
    (["simulate", "tem", "--pixel-size", "40", "--out", "NEW"], "lower pixel_size_nm"),
    (["simulate", "tem", "--defect-share", "2", "--out", "NEW"], "between 0 and 1"),
    (["simulate", "sem", "--pattern", "dots", "--out", "NEW"], "choose from lines"),
    (["simulate", "sem", "--n", "2", "--size", "96x96", "--out", "DATA"], "empty"),
    (["data", "get", "no_such_set"], "no_such_set"),
])
def test_arguments(good, tmp_path, capsys, words, says):
    places = {"RUN": str(good / "run"), "DATA": str(good / "tem"), "NEW": str(tmp_path / "new")}
    code, err = run(capsys, *[places.get(w, w.replace("RUN", places["RUN"])) for w in words])
    assert code == 2 and says in err and "\n" not in err, err
    assert not (tmp_path / "new" / "config.json").exists()
