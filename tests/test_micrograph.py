"""Bad files, truncations and round trips: what `micrograph.read` must refuse, and in which words."""
import io
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from semiml import decode
from semiml.core import BadInput, CannotSave
from semiml.micrograph import Micrograph, read, read_mask, write, write_mask

RNG = np.random.default_rng(0)
GRAY = RNG.integers(1, 255, (40, 56), dtype=np.uint8)


def encode(form, a=GRAY, **kw):
    f = io.BytesIO()
    if form.startswith("tifffile"): tifffile.imwrite(f, a, **kw)
    else: Image.fromarray(a).save(f, form, **kw)
    return f.getvalue()


FILES = {
    "png": encode("png"), "png16": encode("png", GRAY * np.uint16(257)), "jpeg": encode("jpeg"), "bmp": encode("bmp"),
    "tiff": encode("tiff"), "tiff_lzw": encode("tiff", compression="tiff_lzw"), "tifffile": encode("tifffile"),
    "tifffile_zlib": encode("tifffile", compression="zlib", rowsperstrip=8), "tifffile_tiles": encode("tifffile", tile=(16, 16)),
    "tifffile_float": encode("tifffile", GRAY.astype("f4") / 7), "tifffile_be": encode("tifffile", GRAY.astype("u2"), byteorder=">"),
    "tifffile_imagej": encode("tifffile", imagej=True, resolution=(2, 3), metadata=dict(unit="nm")), "tifffile_big": encode("tifffile", bigtiff=True),
}


def refused(path, **kw):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadInput) as e: read(path, **kw)
    text = str(e.value)
    assert str(path) in text and "\n" not in text and ": " in text, text
    return text


@pytest.mark.parametrize("kind", FILES)
def test_whole_file_is_read(kind, tmp_path):
    p = tmp_path / "a.img"
    p.write_bytes(FILES[kind])
    m = read(p)
    want = GRAY * 257. if kind == "png16" else (GRAY / np.float32(7)) if "float" in kind else GRAY
    if kind == "jpeg": assert abs(m.pixels - want).mean() < 20
    else: np.testing.assert_array_equal(m.pixels, np.asarray(want, np.float32))
    assert m.pixels.dtype == np.float32
    assert m.meta["bits"] == (16 if kind in ("png16", "tifffile_be") else 32 if "float" in kind else 8)


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("kind", FILES)
def test_no_beginning_passes_for_the_whole(kind, lenient, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    p, b = tmp_path / "cut.img", FILES[kind]
    for n in sorted({*range(0, min(len(b), 300), 7), *range(len(b) - 12, len(b)), *RNG.integers(0, len(b), 40)}):
        p.write_bytes(b[:n])
        refused(p)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


@pytest.mark.parametrize("kind", FILES)
def test_damaged_bytes_give_an_image_or_a_sentence(kind, tmp_path):
    "Random damage must never crash with anything but BadInput, nor hang, nor eat the memory."
    p = tmp_path / "damaged.img"
    for seed in range(60):
        rng = np.random.default_rng(seed)
        b = bytearray(FILES[kind])
        for i in rng.integers(0, min(len(b), 400) if seed % 2 else len(b), rng.integers(1, 6)): b[i] = rng.integers(256)
        p.write_bytes(b)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try: assert read(p).pixels.ndim == 2
            except BadInput as e: assert str(p) in str(e)


def test_paths(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.tif")
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "empty.tif").touch()
    assert "is empty" in refused(tmp_path / "empty.tif")
    for name, b in {"a.txt": b"no image", "a.tif": b"II*\0 no image at all", "a.png": b"GIF89a" + bytes(50), "a.dm3": b"\0\0\0\3" + bytes(40)}.items():
        (tmp_path / name).write_bytes(b)
        refused(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(value, tmp_path):
    a = GRAY.astype("f4"); a[3, 4] = value
    tifffile.imwrite(tmp_path / "a.tif", a)
    assert "1 of 2240 pixels are NaN or infinite" in refused(tmp_path / "a.tif")


def test_constant(tmp_path):
    Image.new("L", (20, 30), 17).save(tmp_path / "a.png")
    assert "constant" in refused(tmp_path / "a.png") and "17" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("form", ["png", "tif"])
def test_colour_and_alpha(form, tmp_path):
    p, full = tmp_path / f"a.{form}", np.full_like(GRAY, 255)
    for a in ([GRAY] * 3, [GRAY] * 3 + [full]):
        Image.fromarray(np.dstack(a)).save(p)
        np.testing.assert_array_equal(read(p).pixels, GRAY)
    Image.fromarray(np.dstack([GRAY, GRAY, GRAY // 2])).save(p)
    assert "colour image" in refused(p) and "convert" in refused(p)
    Image.fromarray(np.dstack([GRAY, GRAY, GRAY, GRAY])).save(p)
    assert "transparent" in refused(p)
    Image.fromarray(np.dstack([GRAY, full])).save(p)
    np.testing.assert_array_equal(read(p).pixels, GRAY)


def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(w, h, bits, kind, rows):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, kind, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_colour_png(tmp_path):
    p = tmp_path / "a.png"
    p.write_bytes(raw_png(2, 1, 16, 2, b"\0" + struct.pack(">6H", *[1000] * 3, *[1001] * 3)))
    assert "16-bit colour" in refused(p)


def test_decompression_bomb(tmp_path):
    p = tmp_path / "bomb.png"
    p.write_bytes(raw_png(60000, 60000, 8, 0, b"\0" * 100))
    assert "too large" in refused(p)
    b = bytearray(FILES["tifffile"])
    with tifffile.TiffFile(io.BytesIO(bytes(b))) as t: tags = [t.pages[0].tags[c] for c in (256, 257)]
    for tag in tags: b[tag.offset:tag.offset + 12] = struct.pack("<HHII", tag.code, 4, 1, 60000)
    p.write_bytes(b)
    assert "too large" in refused(p)


def test_stack(tmp_path):
    p, a = tmp_path / "a.tif", RNG.integers(0, 255, (3, 20, 30), dtype=np.uint8)
    for kw in (dict(photometric="minisblack"), dict(imagej=True), dict(ome=True, metadata=dict(axes="ZYX"))):
        tifffile.imwrite(p, a, **kw)
        assert "holds 3 frames" in refused(p) and "frame=0 to 2" in refused(p)
        np.testing.assert_array_equal(read(p, frame=2).pixels, a[2])
        assert "no frame 3" in refused(p, frame=3) and "no frame -1" in refused(p, frame=-1)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
def test_tiff_types(dtype, tmp_path):
    a = (GRAY.astype("f8") - (100 if dtype[0] in "if" else 0)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", a)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").pixels, a.astype("f4"))


@pytest.mark.parametrize("px", [(.3, .3), (.44, 2.69), (1234.5, 1.2345), (.0512, .0512), None])
@pytest.mark.parametrize("kind", ["u1", "u2", "float", "negative"])
def test_tiff_round_trip(kind, px, tmp_path):
    a = {"u1": GRAY, "u2": GRAY * 257., "float": RNG.normal(size=(9, 7)), "negative": GRAY - 300.}[kind]
    m = Micrograph(a, px, "TEM", dict(voltage_kV=200.0, vendor="Gatan"))
    write(tmp_path / "a.tif", m)
    back = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.pixels, m.pixels)
    assert back.pixel_size == (px and pytest.approx(px, rel=1e-6))
    assert (back.modality, back.meta["voltage_kV"], back.meta["vendor"]) == ("TEM", 200.0, "Gatan")
    assert tifffile.imread(tmp_path / "a.tif").dtype == dict(u1="u1", u2="u2").get(kind, "f4")


def test_png_refuses_what_it_cannot_hold(tmp_path):
    p = tmp_path / "a.png"
    for a in (GRAY / 7., GRAY - 200., GRAY * 1000.):
        with pytest.raises(BadInput, match="PNG cannot hold"): write(p, Micrograph(a))
        assert not p.exists()
        write(p, Micrograph(a, 2.), scale=(float(a.min()), float(a.max())))
        back = read(p)
        assert back.pixels.min() == 0 and back.pixels.max() == 65535 and back.pixel_size == (2, 2)
        p.unlink()
    with pytest.raises(BadInput, match="not a range"): write(p, Micrograph(GRAY), scale=(3, 3))
    with pytest.raises(BadInput, match="without loss"): write(tmp_path / "a.jpg", Micrograph(GRAY))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    p = tmp_path / "a.tif"
    write(p, Micrograph(GRAY, 1.))
    def full(*a, **k): raise OSError(28, "No space left on device")
    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(CannotSave, match="disk is full"): write(p, Micrograph(GRAY * 2., 2.))
    assert read(p).pixel_size == pytest.approx((1, 1)) and [o.name for o in tmp_path.iterdir()] == ["a.tif"]


def test_zeiss_tag(tmp_path):
    "A 512-column Zeiss file: `AP_PIXEL_SIZE` is the screen's."
    text = "\r\n".join(["", *"0\r\n0\r\n0".split(), "5.824988e-09", "AP_PIXEL_SIZE", "Pixel Size = 5.825 nm", "AP_WIDTH", "Width = 5.965 \u00b5m",
                        "AP_ACTUALKV", "EHT =  5.00 kV", ""])
    tifffile.imwrite(tmp_path / "a.tif", RNG.integers(0, 255, (384, 512), dtype=np.uint8), extratags=[(34118, "s", 0, text.encode("cp1252"), True)])
    m = read(tmp_path / "a.tif")
    assert m.pixel_size == pytest.approx((11.65, 11.65), rel=2e-3) and m.meta["voltage_kV"] == 5.0 and m.modality == "SEM"


def test_resized_vendor_file_is_warned_about(tmp_path):
    ini = "[Scan]\r\nPixelWidth=1e-9\r\nPixelHeight=1e-9\r\n[Image]\r\nResolutionX=112\r\nResolutionY=80\r\n"
    tifffile.imwrite(tmp_path / "a.tif", GRAY, extratags=[(34682, "s", 0, ini, True)])
    with pytest.warns(UserWarning, match="112 pixels wide, this one has 56"): m = read(tmp_path / "a.tif")
    assert m.pixel_size is None
    assert read(tmp_path / "a.tif", pixel_size=2.0).pixel_size == (2, 2)


@pytest.mark.parametrize("form", ["tif", "bmp", "jpg"])
def test_hitachi_sidecar(form, tmp_path):
    Image.fromarray(GRAY).save(tmp_path / f"a.{form}")
    (tmp_path / "a.txt").write_bytes("[SemImageFile]\r\nDataSize=56x32\r\nPixelSize=0.9921875\r\nAcceleratingVoltage=1000 Volt\r\n".encode("utf-16"))
    m = read(tmp_path / f"a.{form}", crop_data_bar=True)
    assert m.shape == (32, 56) and m.pixel_size == (.9921875,) * 2 and m.meta["voltage_kV"] == 1


def test_optional_reader_missing(tmp_path, monkeypatch):
    (tmp_path / "a.dm4").write_bytes(b"\0\0\0\4")
    monkeypatch.setitem(sys.modules, "rsciio", None)
    for k in [k for k in sys.modules if k.startswith("rsciio.")]: monkeypatch.delitem(sys.modules, k)
    assert "semiml[formats]" in refused(tmp_path / "a.dm4")


def test_emd(tmp_path):
    from rsciio import emd  # with h5py, part of the dev extra that tests are run with
    axes = [dict(name=n, size=s, index_in_array=i, scale=sc, offset=0.0, units="nm", navigate=False, _type="UniformDataAxis") for i,
            (n, s, sc) in enumerate((("y", 40, .5), ("x", 56, .25)))]
    emd.file_writer(str(tmp_path / "a.emd"), dict(data=GRAY, axes=axes, metadata=dict(General=dict(title="a"), Signal={}), original_metadata={},
                                                  attributes={}, package_info={}))
    m = read(tmp_path / "a.emd")
    np.testing.assert_array_equal(m.pixels, GRAY)
    assert m.pixel_size == (.5, .25)


def test_masks(tmp_path):
    p, names = tmp_path / "m.png", ["resist", "fin", "void"]
    mask = RNG.choice([0, 1, 2, 255], (30, 40))
    write_mask(p, mask, names)
    np.testing.assert_array_equal(read_mask(p, names), mask)
    assert Image.open(p).mode == "P"
    Image.fromarray(mask.astype("u1")).save(p)
    np.testing.assert_array_equal(read_mask(p, {0: "resist", 1: "fin", 2: "void"}), mask)
    with pytest.raises(BadInput, match="unknown class 2"): read_mask(p, 2)
    for bits, byte, want in ((1, 0b01010000, [0, 1, 0, 1]), (2, 0b00011011, [0, 1, 2, 3]), (4, 0x0123, [0, 1, 2, 3])):
        p.write_bytes(raw_png(4, 1, bits, 0, b"\0" + byte.to_bytes(2 if bits == 4 else 1, "big")))
        np.testing.assert_array_equal(read_mask(p), [want])
    Image.fromarray(GRAY).save(tmp_path / "m.jpg")
    for bad, words in ((tmp_path / "m.jpg", "not a PNG"), (tmp_path, "folder"), (tmp_path / "x.png", "not exist")):
        with pytest.raises(BadInput, match=words): read_mask(bad)
    Image.fromarray(np.zeros((4, 4, 3), "u1")).save(p)
    with pytest.raises(BadInput, match="colour"): read_mask(p)
    p.write_bytes(encode("png")[:-20])
    with pytest.raises(BadInput, match="truncated"): read_mask(p)
    for bad in (mask / 2, mask[0], mask - 1):
        with pytest.raises(BadInput): write_mask(p, bad, names)


def test_limits_of_memory_are_checked_before_decoding():
    assert decode.MAX_PIXELS < Image.MAX_IMAGE_PIXELS * 2
