"""Packages and ccv files: everything comes back, Klaus' and ccv's schemas are kept, broken sets are refused."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaus_runtime import ccv_tables, deflate, png, seeded
from klaus_runtime.errors import InputError
from klaus_runtime.model import Codebook, Convolution, FullConnect, Model, Weights
from klaus_runtime.package import Package, read_package, stream, write_package
from klaus_runtime.quantize import quantize
from klaus_runtime.quantize.schemes import SCHEMES
from klaus_runtime.readers import ccv, klaus

from .golden import TINY, TINY_QUANT
from .zoo import assert_same, everything


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return write_package(everything(), tmp_path_factory.mktemp("package"))


@pytest.mark.parametrize("scheme", [None, *SCHEMES])
@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_ccv_networks_come_back_and_klaus_reads_them(kind: str, scheme: str | None, tmp_path: Path) -> None:
    model = ccv.read(TINY / f"model-{kind}.sqlite3")
    model = model if scheme is None else quantize(model, scheme)
    package = write_package(model, tmp_path)
    assert_same(read_package(package.path), model)
    assert package.total_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert set(package.files) == set(tmp_path.iterdir())
    if scheme is None:
        assert_same(ccv.read(package.path).layers, model.layers)
    elif scheme != "q8":  # Klaus' loader and our reader of his files know codebooks of full connects only
        assert_same(klaus.read(package.path).layers, model.layers)


def test_pictures_are_what_klaus_own_loader_takes(tmp_path: Path) -> None:
    model = quantize(ccv.read(TINY / "model-fp16.sqlite3"), "klaus-mixed")
    package = write_package(model, tmp_path, name="net")
    full = [(n, layer) for n, layer in enumerate(model.layers) if isinstance(layer, FullConnect)]
    assert [path.name for path in package.files] == ["net.sqlite3", *(f"net-layer-{n}.png" for n, _ in full)]
    with sqlite3.connect(package.path) as db:
        for number, layer in full:
            picture = png.read_indices(tmp_path / f"net-layer-{number}.png")
            assert picture.depth == 8
            assert np.array_equal(picture.samples, layer.weights.values)  # width = inputs, height = outputs
            (quant,) = db.execute("SELECT quant FROM layer_quant WHERE layer = ?", (number,)).fetchone()
            assert layer.weights.codebook is not None
            assert quant == layer.weights.codebook.values.astype("<f2").tobytes()
            row = db.execute("SELECT weight, half_precision FROM layer_data WHERE layer = ?", (number,)).fetchone()
            assert row == (None, 0)
    db.close()


def test_everything_comes_back(made: Package) -> None:
    assert_same(read_package(made.path), everything())
    with sqlite3.connect(made.path) as db:  # ccv must not take it for a net of its own
        assert not db.execute("SELECT * FROM sqlite_master WHERE name = 'layer_params'").fetchall()
    db.close()


def test_a_bias_that_half_precision_cannot_hold_is_kept(tmp_path: Path) -> None:
    model = ccv.read(TINY / "model-fp16.sqlite3")
    last = model.layers[-1]
    assert isinstance(last, FullConnect)
    bias = last.weights.bias + np.float32(1e-6)
    changed = replace(model, layers=(*model.layers[:-1], replace(last, weights=replace(last.weights, bias=bias))))
    assert_same(read_package(write_package(changed, tmp_path).path), changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE klaus_correction SET correction = x'0001' WHERE layer = 0", "6 numbers of 4 bytes are needed"),
        ("UPDATE klaus_correction SET correction = NULL WHERE layer = 1", "its correction has nothing"),
        ("UPDATE klaus_correction SET correction = x'7c7c7c7c7c7c' WHERE layer = 0", "infinite or not a number"),
        ("UPDATE klaus_correction SET layer = 2 WHERE layer = 1", "layer 2, which has no weights"),
    ],
)
def test_corrections_that_cannot_be(made: Package, change: str, message: str, tmp_path: Path) -> None:
    for file in made.files:
        shutil.copy(file, tmp_path)
    path = tmp_path / made.path.name
    with sqlite3.connect(path) as db:
        sizes = [len(blob) for (blob,) in db.execute("SELECT correction FROM klaus_correction ORDER BY layer")]
        assert sizes == [6, 24, 14]  # a byte, four and two a number
        db.execute(change)
    db.close()
    with pytest.raises(InputError, match=message):
        read_package(path)


def test_two_writes_are_the_same_bytes(made: Package, tmp_path: Path) -> None:
    again = write_package(everything(), tmp_path)
    assert [path.read_bytes() for path in again.files] == [path.read_bytes() for path in made.files]


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\0b"])
def test_names_with_folders_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no name for a package"):
        write_package(everything(), tmp_path, name=name)


def test_a_hostile_model_name_becomes_a_harmless_file_name(tmp_path: Path) -> None:
    model = replace(everything(), name="../../etc/; rm -rf $HOME")
    package = write_package(model, tmp_path)
    assert package.path.parent == tmp_path
    assert package.path.name == "_.._etc___rm_-rf__HOME-by.sqlite3"


def test_a_failed_write_leaves_the_old_package(tmp_path: Path) -> None:
    package = write_package(everything(), tmp_path, name="net")
    assert [path.name for path in package.files] == ["net.sqlite3", "net-layers.png"]
    blocked = package.files[-1]
    before = {path: path.read_bytes() for path in package.files if path != blocked}
    blocked.unlink()
    blocked.mkdir()  # the last file cannot be replaced, when the others have been already
    with pytest.raises(InputError, match="cannot be written"):
        write_package(replace(everything(), name="other"), tmp_path, name="net")
    assert {path: path.read_bytes() for path in before} == before
    assert set(tmp_path.iterdir()) == set(package.files)


def test_pictures_of_another_package_are_noticed(made: Package, tmp_path: Path) -> None:
    copies = [Path(shutil.copy(path, tmp_path)) for path in made.files]
    picture = png.read_indices(copies[1])
    png.write_indices(copies[1], picture.samples ^ np.uint8(1), 8)
    with pytest.raises(InputError, match="is the picture of another package"):
        read_package(copies[0])
    png.write_indices(copies[1], picture.samples, 8, effort="best")  # repacked by a tool: the same samples
    assert_same(read_package(copies[0]), everything())
    copies[1].unlink()
    with pytest.raises(InputError, match=rf"{copies[1].name}: does not exist"):
        read_package(copies[0])


BROKEN = [
    ("DELETE FROM klaus_package WHERE key = 'name'", "its name is not a text"),
    ("UPDATE klaus_package SET value = '3' WHERE key = 'version'", "version 3, this is for versions 1 and 2"),
    ("UPDATE klaus_package SET value = '[' WHERE key = 'provenance'", "not the JSON"),
    ("UPDATE klaus_package SET value = x'5b005d00' WHERE key = 'provenance'", "not the JSON"),  # [] in UTF-16
    ("UPDATE klaus_package SET value = '[1e9, 9, 3]' WHERE key = 'input_shape'", "input_shape is"),
    ("UPDATE klaus_package SET value = '\"x\"' WHERE key = 'labels'", "ilsvrc2012, sorted-wnids are known"),
    ("UPDATE klaus_package SET value = '{\"kind\": \"x\"}' WHERE key = 'formation'", "ccv and crop are known"),
    ("DROP TABLE klaus_layer", "no table klaus_layer"),
    ("DELETE FROM klaus_layer WHERE layer = 3", "has layer 4 where 3"),
    ("UPDATE klaus_layer SET kind = 'magic' WHERE layer = 3", "is of the kind"),
    ("UPDATE klaus_layer SET settings = '{}' WHERE layer = 3", "has settings"),
    ('UPDATE klaus_layer SET settings = \'{"begin":2,"channels":3,"x":1}\' WHERE layer = 3', "has settings"),
    ("UPDATE klaus_layer SET inputs = '[7]' WHERE layer = 3", "reads layer 7"),
    ("UPDATE klaus_layer SET inputs = '[true]' WHERE layer = 3", "an input is True"),
    ("UPDATE klaus_layer SET weight_shape = '[65536,65536,65536,9]' WHERE layer = 0", "2,533,274,790,395,904 weights"),
    ("UPDATE klaus_layer SET weight_shape = '[6,18]' WHERE layer = 0", "2 dimensions"),
    ("UPDATE klaus_layer SET name = x'ff' WHERE layer = 0", "its name is not UTF-8"),
    ("UPDATE klaus_label SET name = NULL WHERE class = 2", "no proper row for class 2"),
    ("DELETE FROM klaus_label WHERE class = 6", "6 labels"),
]
BROKEN_CLASSIC = [
    ("DROP TABLE layer_data", "no table layer_data"),
    ("UPDATE klaus_layer SET weight_shape = '[1]' WHERE layer = 9", "2 or 4 numbers"),
    ("UPDATE klaus_layer SET scale = x'00' WHERE layer = 9", "its scale has 1 bytes"),
    ("DELETE FROM layer_quant", "its codebook has 0 entries"),
    ("UPDATE layer_data SET bias = NULL WHERE layer = 0", "its bias has nothing"),
    ("UPDATE layer_quant SET quant = x'0000'", "codebook index"),
    ("DELETE FROM convnet_params", "its mean picture has 0 numbers"),
]
BROKEN_EXTENDED = [
    ("UPDATE klaus_layer SET entries = 257 WHERE layer = 0", "its entries is 257"),
    ("UPDATE klaus_layer SET entries = -1 WHERE layer = 0", "its entries is -1"),
    ("UPDATE klaus_layer SET entries = 17, indices_a_byte = 2 WHERE layer = 0", "they do not fit"),
    ("UPDATE klaus_layer SET entries = NULL WHERE layer = 0", "its indices_a_byte is"),
    ("UPDATE klaus_layer SET entries = 4 WHERE layer = 0", "instead of"),
    ("UPDATE klaus_layer SET indices_a_byte = 3 WHERE layer = 0", "its indices_a_byte is 3: 1 or 2 or 4"),
    ("UPDATE klaus_layer SET transposed = x'01' WHERE layer = 0", "its transposed is"),
    ("UPDATE klaus_layer SET bias_bytes = 1 WHERE layer = 1", "its bias_bytes is 1: 0 or 2 or 4"),
    ("UPDATE klaus_layer SET codebook_bytes = 8 WHERE layer = 0", "its codebook_bytes is 8"),
    ("UPDATE klaus_layer SET weight_bytes = NULL WHERE layer = 1", "its weight_bytes is 0"),
    ("UPDATE klaus_layer SET weight_shape = '[16384,16384]' WHERE layer = 9", "its stream has"),
    ("DELETE FROM klaus_package WHERE key = 'stream_sha256'", "picture of another package"),
]


def _broken(made: Package, folder: Path, change: str, message: str) -> None:
    path, *_ = [Path(shutil.copy(each, folder)) for each in made.files]
    db = sqlite3.connect(path)
    db.execute(change)
    db.commit()
    db.close()
    with pytest.raises(InputError, match=message) as error:
        read_package(path)
    assert path.stem in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("change", "message"), [*BROKEN, *BROKEN_EXTENDED])
def test_broken_packages_are_refused_with_a_reason(made: Package, tmp_path: Path, change: str, message: str) -> None:
    _broken(made, tmp_path, change, message)


@pytest.mark.parametrize(("change", "message"), BROKEN_CLASSIC)
def test_broken_packages_of_klaus_form_are_refused(tmp_path: Path, change: str, message: str) -> None:
    model = quantize(ccv.read(TINY / "model-fp16.sqlite3"), "klaus-mixed")
    _broken(write_package(model, tmp_path / "made"), tmp_path, change, message)


def test_weights_without_codebooks_stay_plain(tmp_path: Path) -> None:
    model = everything()
    layers = [
        replace(layer, weights=replace(layer.weights, values=layer.weights.stored(), codebook=None))
        if isinstance(layer, FullConnect | Convolution) and layer.weights.codebook
        else layer
        for layer in model.layers
    ]
    plain = replace(model, layers=tuple(layers))
    package = write_package(plain, tmp_path)
    assert len(package.files) == 1
    assert_same(read_package(package.path), plain)


def _turned(model: Model, entries: int) -> Model:
    """Every layer with a codebook of so many entries, the indices of each input near to one value."""
    draw = np.random.default_rng(entries)
    layers = []
    for layer in model.layers:
        if isinstance(layer, FullConnect | Convolution):
            shape = layer.weights.values.shape
            middle = draw.integers(0, entries, shape[1:])
            indices = np.clip(middle + draw.integers(-1, 2, shape), 0, entries - 1).astype(np.uint8)
            book = Codebook(np.sort(draw.standard_normal(entries)).astype(np.float16))
            layer = replace(layer, weights=Weights(indices, layer.weights.bias, None, book))  # noqa: PLW2901
        layers.append(layer)
    return replace(model, layers=tuple(layers))


@pytest.mark.parametrize(
    ("entries", "effort"),
    [*((entries, "fast") for entries in (1, 2, 3, 4, 5, 8, 16, 17, 256)), (4, "best"), (16, "best")],
)
def test_indices_of_every_width_come_back(entries: int, effort: deflate.Effort, tmp_path: Path) -> None:
    model = _turned(ccv.read(TINY / "model-fp32.sqlite3"), entries)
    package = write_package(model, tmp_path, name="x", effort=effort)
    assert [path.name for path in package.files] == ["x.sqlite3", "x-layers.png"]
    assert_same(read_package(package.path), model)
    db = sqlite3.connect(package.path)
    rows = db.execute("SELECT indices_a_byte, transposed FROM klaus_layer WHERE entries").fetchall()
    db.close()
    dense = 4 if entries <= 4 else 2 if entries <= 16 else 1
    assert all(row[0] <= dense for row in rows)
    if effort == "best":
        assert (dense, 1) in rows  # inputs differ here, so they are kept together


def test_long_streams_go_on_in_another_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PICTURE_PIXELS", 500)
    monkeypatch.setattr(stream, "_WIDTH", 64)
    package = write_package(everything(), tmp_path, name="x")
    assert [path.name for path in package.files[:3]] == ["x.sqlite3", "x-layers.png", "x-layers-2.png"]
    assert_same(read_package(package.path), everything())


def test_klaus_own_loader_is_insisted_on(tmp_path: Path) -> None:
    model = quantize(ccv.read(TINY / "model-fp16.sqlite3"), "klaus-mixed")
    package = write_package(model, tmp_path, compat="klaus-2014")
    assert_same(klaus.read(package.path).layers, model.layers)
    with pytest.raises(InputError, match=r"layer 0 .* has a codebook that is not of a full connect"):
        write_package(everything(), tmp_path / "no", compat="klaus-2014")
    assert not (tmp_path / "no").exists()


def test_a_release_is_smaller_and_the_same_network(tmp_path: Path) -> None:
    model = quantize(ccv.read(TINY / "model-fp16.sqlite3"), "q8")
    fast = write_package(model, tmp_path / "fast")
    best = write_package(model, tmp_path / "best", effort="best")
    assert best.total_bytes < fast.total_bytes
    assert_same(read_package(best.path), model)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_databases_give_a_model_or_one_error(
    made: Package, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path, *_ = [Path(shutil.copy(each, folder)) for each in made.files]
    changed = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(changed[: data.draw(st.one_of(st.none(), st.integers(0, len(changed))))])
    try:
        assert isinstance(read_package(path), Model)
    except InputError as error:
        assert path.name in str(error)  # noqa: PT017
    shutil.rmtree(folder)


# ----------------------------------------------------------------------------------------------------- ccv files


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_ccv_files_are_ccvs_own_row_by_row(kind: str, tmp_path: Path) -> None:
    source = TINY / f"model-{kind}.sqlite3"
    written = ccv_tables.write_ccv(ccv.read(source), tmp_path / "x.sqlite3", half=kind == "fp16")
    for table in ("layer_params", "layer_data", "convnet_params"):
        rows = []
        for path in (source, written):
            db = sqlite3.connect(path)
            db.row_factory = sqlite3.Row
            found = [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY 1")]
            for row in found:
                row.pop("output_partition", None)  # used in no computation; we write the number of groups
                if row.get("type") in (3, 4):
                    row.pop("input_matrix_partition")  # pools have no groups
            rows.append(found)
            db.close()
        assert rows[0] == rows[1]


def test_codebooks_are_multiplied_out_for_ccv(tmp_path: Path) -> None:
    model = klaus.read(TINY_QUANT / "a-depth8-index" / "model.sqlite3")
    written = ccv.read(ccv_tables.write_ccv(model, tmp_path / "x.sqlite3", half=True))
    assert_same(written.layers, ccv.read(TINY_QUANT / "equivalent-fp16.sqlite3").layers)


def test_what_does_not_fit_ccv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write a package instead"):
        ccv_tables.write_ccv(everything(), tmp_path / "x.sqlite3")
    assert not list(tmp_path.iterdir())
    assert ccv_tables.why_not(seeded.klaus_mobile()) is None


def test_half_precision_is_truncated_as_in_ccv(shared: Path) -> None:
    lines = (shared / "data" / "ccv-golden" / "half" / "half.txt").read_text().splitlines()
    pairs = [tuple(int(word, 16) for word in line.split()[:2]) for line in lines if line and line[0] != "#"]
    given = np.array([pair[0] for pair in pairs], np.uint32).view(np.float32)
    wanted = np.array([pair[1] for pair in pairs], np.uint16)
    fits = np.isfinite(given) & (np.abs(given) < 65536)
    assert fits.sum() > 1000
    assert np.array_equal(ccv_tables.truncate_to_half(given[fits]).view(np.uint16), wanted[fits])


def test_too_large_for_half_precision(tmp_path: Path) -> None:
    model = ccv.read(TINY / "model-fp32.sqlite3")
    last = model.layers[-1]
    assert isinstance(last, FullConnect)
    weights = replace(last.weights, bias=np.full_like(last.weights.bias, 1e5))
    changed = replace(model, layers=(*model.layers[:-1], replace(last, weights=weights)))
    with pytest.raises(InputError, match="write float32"):
        ccv_tables.write_ccv(changed, tmp_path / "x.sqlite3", half=True)
    assert not list(tmp_path.iterdir())
