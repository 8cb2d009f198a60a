"""Real vendor files: Zeiss SEM TIFF and Gatan dm3, where `SEMIML_DATA` has them. The scale is checked against what is drawn in the images."""
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from semiml.core import BadInput
from semiml.micrograph import find_data_bar, read


@pytest.fixture(scope="module")
def vendor():
    folder = Path(os.environ.get("SEMIML_DATA", "")) / "vendor_formats"
    if not os.environ.get("SEMIML_DATA") or not folder.is_dir():
        why = "the real vendor files are not here: set SEMIML_DATA to a folder that has vendor_formats/"
        pytest.fail(why) if os.environ.get("SEMIML_REQUIRE") == "1" else pytest.skip(why)
    return folder


@pytest.fixture(scope="module")
def zeiss(vendor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zeiss")
    with zipfile.ZipFile(vendor / "tiff_Zeiss_SEM.zip") as z:
        for i in z.infolist(): # only plain names, and no more than 100 MB
            if i.filename == Path(i.filename).name and i.file_size < 1e8: z.extract(i, folder)
    return folder


def drawn_bar_px(m):
    "Length of the scale bar in the data zone: the longest dark horizontal run in its left quarter."
    row = find_data_bar(m.pixels)
    zone = m.pixels[row + 3:-4, 4:m.shape[1] // 4] < 64
    best = 0
    for line in zone:
        edges = np.flatnonzero(np.diff(np.r_[0, line.astype(int), 0]))
        best = max([best, *(edges[1::2] - edges[::2])])
    return best


@pytest.mark.parametrize("name, frame, px, kV, field_um, bar_nm, top", [
    ("test_tiff_Zeiss_SEM_512pix.tif", None, 11.649976, 5.0, 5.965, 200, 350),
    ("test_tiff_Zeiss_SEM_1k.tif", None, 2614.514, 25.0, 2677, 200_000, 691),
    ("ZEISS_SEM_multipage.tif", 0, 12.326225, 1.8, 25.24, None, None),
    ("ZEISS_SEM_multipage.tif", 1, 12.326225, 1.8, 25.24, None, None),
])
def test_zeiss(zeiss, name, frame, px, kV, field_um, bar_nm, top):
    m = read(zeiss / name, frame=frame)
    assert m.pixel_size == pytest.approx((px, px), rel=1e-6)
    assert m.field_nm[1] / 1000 == pytest.approx(field_um, rel=1e-3) # the width that the microscope states
    assert m.meta["voltage_kV"] == kV and m.meta["vendor"] == "Zeiss" and m.modality == "SEM"
    assert find_data_bar(m.pixels) == top
    cut = read(zeiss / name, frame=frame, crop_data_bar=True)
    assert cut.shape == (top or m.shape[0], m.shape[1]) and cut.pixel_size == m.pixel_size
    if bar_nm: # its ends are 1 px lines; the screen's pixel size would be off by a factor 2 for the first
        assert abs(drawn_bar_px(m) - bar_nm / m.pixel_size[1]) <= 2


def test_zeiss_two_pages(zeiss):
    with pytest.raises(BadInput, match="holds 2 frames"): read(zeiss / "ZEISS_SEM_multipage.tif")
    a, b = (read(zeiss / "ZEISS_SEM_multipage.tif", frame=k).pixels for k in (0, 1))
    assert a.shape == b.shape == (1536, 2048) and (a != b).any()


def test_zeiss_truncated(zeiss, tmp_path):
    b = (zeiss / "test_tiff_Zeiss_SEM_512pix.tif").read_bytes()
    for n in (100, 400, 2000, len(b) // 2, len(b) - 1):
        (tmp_path / "cut.tif").write_bytes(b[:n])
        with pytest.raises(BadInput, match="truncated|damaged"): read(tmp_path / "cut.tif")


def test_dm3_image(vendor):
    m = read(vendor / "test_dm_image_um_unit.dm3")
    assert m.shape == (68, 68) and m.meta["vendor"] == "Gatan"
    assert m.pixel_size == pytest.approx((168.674692, 168.674692), rel=1e-6) # 0.1687 um in the file


def test_dm3_spectrum_is_no_image(vendor):
    with pytest.raises(BadInput, match="holds no image but .*Energy loss.*eV"): read(vendor / "08_carbon.dm3")


def test_dm3_truncated(vendor, tmp_path):
    b = (vendor / "test_dm_image_um_unit.dm3").read_bytes()
    for n in (5, 1000, len(b) // 2):
        (tmp_path / "cut.dm3").write_bytes(b[:n])
        with pytest.raises(BadInput, match="damaged"): read(tmp_path / "cut.dm3")
