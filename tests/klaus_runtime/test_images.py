"""Pictures: what decodes becomes RGB as ccv sees it, all else is one clear error; forming and finding."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from klaus_runtime import images, resample
from klaus_runtime.errors import InputError
from klaus_runtime.model import U8, CropFormation, Model

from . import nets
from .attempt import attempt
from .golden import TINY

LANDSCAPE = TINY / "images" / "landscape-97x160.png"


def _pixels(*shape: int) -> U8:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _saved(path: Path, pixels: U8, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    pixels = _pixels(5, 7, 3)
    np.testing.assert_array_equal(images.read_picture(_saved(tmp_path / "a.png", pixels)), pixels)


def test_gray_is_replicated(tmp_path: Path) -> None:
    gray = _pixels(5, 7)
    wanted = np.repeat(gray[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(images.read_picture(_saved(tmp_path / "a.png", gray)), wanted)


def test_alpha_is_dropped_not_composited(tmp_path: Path) -> None:
    pixels = _pixels(5, 7, 4)
    np.testing.assert_array_equal(images.read_picture(_saved(tmp_path / "a.png", pixels)), pixels[:, :, :3])
    gray = _pixels(5, 7, 2)
    got = images.read_picture(_saved(tmp_path / "b.png", gray))
    np.testing.assert_array_equal(got, np.repeat(gray[:, :, :1], 3, axis=2))


def test_palettes_become_their_colours(tmp_path: Path) -> None:
    path = _saved(tmp_path / "a.png", _pixels(9, 9, 3), "P")
    with Image.open(path) as image:
        wanted = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(images.read_picture(path), wanted)
    with_alpha = tmp_path / "b.png"
    with Image.open(path) as image:
        image.save(with_alpha, transparency=bytes(range(256)))
    np.testing.assert_array_equal(images.read_picture(with_alpha), wanted)


@pytest.mark.parametrize("colour_type", [0, 2, 4, 6])
def test_sixteen_bits_are_cut_to_the_high_byte(tmp_path: Path, colour_type: int) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    samples = np.random.default_rng(1).integers(0, 65536, (3, 4, channels), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    path = tmp_path / "a.png"
    path.write_bytes(_png(3, 4, 16, colour_type, zlib.compress(rows)))
    high = (samples >> 8).astype(np.uint8)
    wanted = np.repeat(high[:, :, :1], 3, axis=2) if channels < 3 else high[:, :, :3]
    np.testing.assert_array_equal(images.read_picture(path), wanted)


def test_orientation_in_exif_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = _saved(tmp_path / "a.jpg", _pixels(8, 16, 3), exif=exif)
    assert images.read_picture(path).shape == (8, 16, 3)


def _png(rows: int, cols: int, depth: int, colour_type: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", cols, rows, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("rows", "cols"), [(100_000, 100_000), (20_000, 20_000), (1, 65_537), (9000, 9000)])
def test_bombs_are_refused_by_their_header(tmp_path: Path, rows: int, cols: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_png(rows, cols, 8, 0, b""))
    with pytest.raises(InputError, match=r"bomb\.png"):
        images.read_picture(path)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    path = tmp_path / "not.jpg"
    for data in (b"", b"hello", b"\xff\xd8\xff\xe0" + bytes(50), b"GIF89a" + bytes(100), b"%PDF-1.4" + bytes(100)):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"not\.jpg"):
            images.read_picture(path)
    with pytest.raises(InputError, match="No such file"):
        images.read_picture(tmp_path / "absent.jpg")
    with pytest.raises(InputError, match="not a file"):
        images.read_picture(tmp_path)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_truncated_photos_are_errors(tmp_path: Path, ending: str) -> None:
    whole = _saved(tmp_path / f"whole.{ending}", _pixels(64, 64, 3)).read_bytes()
    path = tmp_path / f"cut.{ending}"
    for size in (10, len(whole) // 3, len(whole) - 40):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="cut"):
            images.read_picture(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bits_do_no_harm(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray((LANDSCAPE.parent / "small-30x52.png").read_bytes())
    if data.draw(st.booleans()):
        whole = bytearray(_saved(tmp_path / "a.jpg", _pixels(32, 40, 3)).read_bytes())
    for position, bit in data.draw(
        st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 7)), min_size=1, max_size=9)
    ):
        whole[position % len(whole)] ^= 1 << bit
    path = tmp_path / "flipped"
    path.write_bytes(whole)
    picture, _ = attempt(lambda: images.read_picture(path))
    assert picture is None or (picture.dtype == np.uint8 and picture.shape[2] == 3)


def _cropping(padding: int, size: int = 20, order: str = "rgb") -> Model:
    model = replace(nets.everything(), input_shape=(size, size, 3))
    formation = CropFormation(padding, (127, 127, 127), (1 / 128,) * 3, "bgr" if order == "bgr" else "rgb")
    return replace(model, formation=formation)


def test_crop_formation_is_pillows() -> None:
    pixels = images.read_picture(LANDSCAPE)
    side = 97 * 20 // 24
    left, top = (160 - side + 1) // 2, (97 - side + 1) // 2
    cut = Image.fromarray(pixels).crop((left, top, left + side, top + side)).resize((20, 20), Image.Resampling.BICUBIC)
    wanted = (np.asarray(cut).astype(np.float32) - 127) / 128
    np.testing.assert_array_equal(images.form(_cropping(4), pixels), wanted)
    np.testing.assert_array_equal(images.form(_cropping(4, order="bgr"), pixels), wanted[:, :, ::-1])


def test_without_a_crop_a_fitting_picture_stays_as_it_is() -> None:
    pixels = _pixels(20, 20, 3)
    wanted = (pixels.astype(np.float32) - 127) / 128
    np.testing.assert_array_equal(images.form(_cropping(4), pixels, "none"), wanted)
    assert images.form(_cropping(4), _pixels(7, 90, 3), "none").shape == (20, 20, 3)
    assert images.form(_cropping(4), _pixels(1, 1, 3)).shape == (20, 20, 3)


def test_models_that_take_no_pictures_say_so() -> None:
    with pytest.raises(InputError, match="takes tensors"):
        images.form(replace(nets.everything(), formation=None), _pixels(20, 20, 3))
    with pytest.raises(InputError, match="always crops"):
        images.form(nets.ccv_like(), _pixels(20, 20, 3), "none")
    with pytest.raises(InputError, match="does not form"):
        images.feed(nets.everything(), _pixels(20, 20, 3))


@pytest.mark.parametrize("picture", [_pixels(5, 5), _pixels(5, 5, 4), _pixels(0, 5, 3), np.zeros((5, 5, 3))])
def test_arrays_that_are_no_pictures(picture: U8) -> None:
    with pytest.raises(InputError, match="a picture is uint8"):
        images.form(_cropping(4), picture)
    with pytest.raises(InputError, match="a picture is uint8"):
        images.ccv_formed(picture, 9, 9)


@settings(max_examples=80, deadline=None)
@given(rows=st.integers(1, 60), cols=st.integers(1, 60), seed=st.integers(0, 99))
def test_any_picture_is_formed_or_refused_for_being_thin(rows: int, cols: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (rows, cols, 3), np.uint8)
    formed, message = attempt(lambda: images.ccv_formed(picture, 21, 21))
    if formed is None:
        assert "thin" in message
        assert max(rows, cols) > 15 * min(rows, cols)
        return
    assert min(formed.shape[:2]) == 21
    assert abs(formed.shape[0] / formed.shape[1] - rows / cols) <= 0.6 * max(rows / cols, 1) / min(formed.shape[:2]) * 2
    model = nets.ccv_like()
    assert images.form(model, picture).shape == model.input_shape


def test_thin_pictures_do_not_become_huge() -> None:
    with pytest.raises(InputError, match="too thin"):
        images.ccv_formed(_pixels(1, 60_000, 3), 257, 257)
    with pytest.raises(InputError, match="too thin"):
        images.ccv_formed(_pixels(257, 5000, 3), 257, 257)


def test_targets_that_are_no_squares_are_refused_where_ccv_stops() -> None:
    with pytest.raises(InputError, match="cannot be shrunk"):
        images.ccv_formed(_pixels(42, 57, 3), 41, 55)


@pytest.mark.parametrize("matrix", [resample.ccv_area, resample.ccv_cubic])
def test_flat_pictures_stay_flat(matrix: resample.MatrixMaker) -> None:
    for size, new_size in ((10, 7), (7, 10), (10, 10), (1, 4), (9, 1)):
        if matrix is resample.ccv_area and new_size > size:
            continue
        np.testing.assert_allclose(matrix(size, new_size).sum(axis=1), 1)
    same = resample.resample(_pixels(6, 5, 3), 6, 5, matrix)
    np.testing.assert_allclose(same, _pixels(6, 5, 3), atol=1e-4)


def test_wide_pictures_are_resampled_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = _pixels(40, 50, 3)
    whole = resample.resample(pixels, 11, 13, resample.ccv_area)
    monkeypatch.setattr(resample, "_CHUNK_ELEMENTS", 500)
    np.testing.assert_array_equal(resample.resample(pixels, 11, 13, resample.ccv_area), whole)


def test_photos_of_all_endings_are_found(tmp_path: Path) -> None:
    for name in (
        "n00000002/b.JPEG",
        "n00000002/a.jpg",
        "n00000001/c.PNG",
        "n00000001/c.txt",
        "other/d.jpg",
        "n1/e.jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "n00000003").touch()
    found = [(wnid, path.name) for wnid, path in images.find_photos(tmp_path)]
    assert found == [("n00000001", "c.PNG"), ("n00000002", "a.jpg"), ("n00000002", "b.JPEG")]


def test_folders_without_photos_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no photos"):
        images.find_photos(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        images.find_photos(tmp_path / "absent")
