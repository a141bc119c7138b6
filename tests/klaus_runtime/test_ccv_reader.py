"""ccv's sqlite3: everything that ccv lets pass is an error here, and no damage gets further than an InputError."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klaus_runtime import shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import Activation, CcvFormation, Convolution, FullConnect, Label, LocalResponseNorm, Pool
from klaus_runtime.readers import ccv

from .attempt import attempt
from .golden import TINY, TINY_QUANT
from .sqlite_nets import changed


def test_geometry_and_meaning_of_every_column() -> None:
    model = ccv.read(TINY / "model-fp16.sqlite3")
    assert model.input_shape == (47, 47, 3)
    assert [type(layer).__name__ for layer in model.layers[:9]] == [
        "Convolution", "LocalResponseNorm", "Pool", "Convolution", "LocalResponseNorm", "Pool", "Convolution", "Pool",
        "FullConnect",
    ]  # fmt: skip
    first, norm, average, last = model.layers[0], model.layers[1], model.layers[5], model.layers[11]
    assert isinstance(first, Convolution)
    assert first.activation is Activation.RELU
    assert first.weights.values.shape == (12, 5, 5, 3)
    assert first.weights.values.dtype == np.float16
    assert isinstance(norm, LocalResponseNorm)
    assert (norm.groups, norm.size, norm.alpha) == (2, 5, float(np.float32(0.01)))
    assert isinstance(average, Pool)
    assert (average.kind, average.window.pads) == ("average", (1, 1, 1, 1))
    assert isinstance(last, FullConnect)
    assert last.activation is Activation.LINEAR
    assert isinstance(model.formation, CcvFormation)
    assert (model.formation.rows, model.formation.cols, model.formation.scan_layer) == (55, 55, 6)
    assert model.formation.mean.dtype == np.float32
    assert (model.patches, model.labels) == (10, ())
    assert shapes.infer(model)[6:9] == [(4, 4, 16), (2, 2, 16), (1, 1, 20)]
    assert "model-fp16.sqlite3" in model.provenance.source


def test_numbers_in_layer_only_order_the_rows(tmp_path: Path) -> None:
    path = changed(tmp_path, "UPDATE layer_params SET layer = layer + 100")
    assert len(ccv.read(path).layers) == 12


def test_labels_and_provenance_can_be_given() -> None:
    labels = tuple(Label(f"n{number}", f"class {number}") for number in range(10))
    assert ccv.read(TINY / "model-fp16.sqlite3", labels=labels).labels == labels


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DROP TABLE layer_params", "no table layer_params"),
        ("DROP TABLE layer_data", "no table layer_data"),
        ("DROP TABLE convnet_params", "no table convnet_params"),
        ("DELETE FROM layer_params", "0 layers"),
        ("DELETE FROM convnet_params", "no row 0"),
        ("UPDATE convnet_params SET input_height = -1", "picture size -1 x 55"),
        ("UPDATE convnet_params SET input_height = 'x'", "not possible"),
        ("UPDATE convnet_params SET mean_activity = NULL", "mean_activity has None bytes"),
        ("UPDATE convnet_params SET mean_activity = zeroblob(36301)", "mean_activity has 36301 bytes"),
        ("UPDATE convnet_params SET input_height = 56, mean_activity = zeroblob(36960)", "no multiple of its strides"),
        ("UPDATE layer_params SET type = 6 WHERE layer = 4", "layer 4: type is 6"),
        ("UPDATE layer_params SET type = NULL WHERE layer = 4", "layer 4: type is None"),
        ("UPDATE layer_params SET output_size = 'big' WHERE layer = 4", "output_size is not an integer"),
        ("UPDATE layer_params SET output_kappa = 'x' WHERE layer = 4", "output_kappa is not a number"),
        ("UPDATE layer_params SET output_kappa = 1e300 WHERE layer = 4", "output_kappa is 1e+300"),
        ("UPDATE layer_params SET output_kappa = NULL WHERE layer = 4", "output_kappa is None"),
        ("UPDATE layer_params SET output_strides = 0 WHERE layer = 0", "output_strides is 0"),
        ("UPDATE layer_params SET output_strides = 3 WHERE layer = 3", "do not fill 11 x 11 exactly"),
        ("UPDATE layer_params SET output_border = -1 WHERE layer = 0", "output_border is -1"),
        ("UPDATE layer_params SET output_rows = 4 WHERE layer = 0", "odd sizes only"),
        ("UPDATE layer_params SET output_rows = 999999999999 WHERE layer = 0", "output_rows is 999999999999"),
        ("UPDATE layer_params SET output_count = -8 WHERE layer = 0", "output_count is -8"),
        ("UPDATE layer_params SET input_node_count = 65536 WHERE layer = 8", "input_node_count is 65536"),
        ("UPDATE layer_params SET input_matrix_partition = 5 WHERE layer = 3", "partitions do not fit"),
        ("UPDATE layer_params SET input_matrix_partition = 0 WHERE layer = 1", "input_matrix_partition is 0"),
        ("UPDATE layer_params SET output_partition = 7 WHERE layer = 3", "partitions do not fit"),
        ("UPDATE layer_params SET output_channels = 6 WHERE layer = 3", "output_channels is 6"),
        ("UPDATE layer_params SET input_matrix_rows = 12 WHERE layer = 3", "says it reads 12 x 11 x 12"),
        ("UPDATE layer_params SET input_matrix_channels = 12 WHERE layer = 4", "says it reads 11 x 11 x 12"),
        ("UPDATE layer_params SET input_node_count = 63 WHERE layer = 8", "input_node_count is 63"),
        ("UPDATE layer_params SET output_relu = NULL WHERE layer = 8", "output_relu is None"),
        ("DELETE FROM layer_data WHERE layer = 3", "layer 3: layer_data has no row"),
        ("UPDATE layer_data SET layer = 12 WHERE layer = 3", "weights for layer 12"),
        ("UPDATE layer_data SET layer = -1 WHERE layer = 3", "weights for layer -1"),
        ("INSERT INTO layer_data (layer) VALUES (1)", "layer 1, which is of type 5"),
        ("UPDATE layer_data SET weight = NULL WHERE layer = 3", "layer 3: weight holds nothing"),
        ("UPDATE layer_data SET weight = zeroblob(2593) WHERE layer = 3", "layer 3: weight holds 2593 bytes"),
        ("UPDATE layer_data SET bias = zeroblob(1) WHERE layer = 3", "layer 3: bias holds 1 bytes"),
        ("UPDATE layer_data SET bias = 'text' WHERE layer = 3", "bias holds 4 bytes of type text"),
        ("UPDATE layer_data SET half_precision = NULL WHERE layer = 3", "half_precision is not an integer"),
        ("UPDATE layer_data SET half_precision = 0 WHERE layer = 3", "its geometry needs"),
        ("ALTER TABLE layer_params DROP COLUMN output_relu", "no such column"),
    ],
)  # fmt: skip
def test_laxness_of_ccv_is_an_error(tmp_path: Path, statement: str, says: str) -> None:
    path = changed(tmp_path, statement)
    with pytest.raises(InputError) as caught:
        ccv.read(path)
    message = str(caught.value)
    assert says in message
    assert message.startswith(str(path))
    assert "\n" not in message


@pytest.mark.parametrize(("number", "says"), [(np.nan, "not a number"), (np.inf, "infinite")])
def test_weights_must_be_finite(tmp_path: Path, number: float, says: str) -> None:
    weights = np.ones(1296, np.float16)
    weights[7] = number
    statement = ("UPDATE layer_data SET weight = ? WHERE layer = 3", (weights.tobytes(),))
    with pytest.raises(InputError, match=says):
        ccv.read(changed(tmp_path, statement))


def test_nothing_but_full_connects_behind_a_full_connect(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        "UPDATE layer_params SET type = 4, output_strides = 1, output_border = 0, output_size = 1 WHERE layer = 10",
        "DELETE FROM layer_data WHERE layer = 10",
    )
    with pytest.raises(InputError, match="only full connect layers may follow"):
        ccv.read(path)


def test_two_rows_for_a_layer_are_refused(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        "ALTER TABLE layer_data RENAME TO old",
        "CREATE TABLE layer_data (layer INTEGER, weight BLOB, bias BLOB, half_precision INTEGER)",
        "INSERT INTO layer_data SELECT * FROM old",
        "INSERT INTO layer_data SELECT * FROM old WHERE layer = 3",
    )
    with pytest.raises(InputError, match="two rows for layer 3"):
        ccv.read(path)


def test_codebooks_belong_to_the_other_reader() -> None:
    with pytest.raises(InputError, match="codebooks for layers 8, 9, 10, 11"):
        ccv.read(TINY_QUANT / "a-depth8-index" / "model.sqlite3")


def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        ccv.read(tmp_path / "absent.sqlite3")
    assert list(tmp_path.iterdir()) == []


def test_reading_leaves_nothing_behind_and_needs_no_write_access(tmp_path: Path) -> None:
    path = changed(tmp_path)
    tmp_path.chmod(0o555)
    try:
        ccv.read(path)
    finally:
        tmp_path.chmod(0o755)
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_mean_something_in_uris_are_only_names(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=rwc&b#c%20d.sqlite3"
    shutil.copy(TINY / "model-fp16.sqlite3", path)
    assert ccv.read(path).name == "a?mode=rwc&b#c%20d"


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "photo.sqlite3"
    other.write_bytes(b"\x89PNG\r\n\x1a\n" * 100)
    with pytest.raises(InputError, match="not a sqlite3 file"):
        ccv.read(other)
    with pytest.raises(InputError):
        ccv.read(tmp_path)


def test_an_unfinished_transaction_is_refused(tmp_path: Path) -> None:
    path = changed(tmp_path)
    path.with_name("net.sqlite3-journal").write_bytes(b"x")
    with pytest.raises(InputError, match="unfinished transaction"):
        ccv.read(path)


@pytest.mark.parametrize(
    "view",
    [
        "CREATE VIEW layer_params AS SELECT * FROM old",
        "CREATE VIEW layer_params AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n",
    ],
)
def test_views_are_no_tables(tmp_path: Path, view: str) -> None:
    path = changed(tmp_path, "ALTER TABLE layer_params RENAME TO old", view)
    with pytest.raises(InputError, match="not a plain table"):
        ccv.read(path)


def test_generated_columns_cannot_take_forever(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        "ALTER TABLE convnet_params RENAME TO old",
        "CREATE TABLE convnet_params (convnet INTEGER PRIMARY KEY, input_height INTEGER, input_width INTEGER, "
        "mean_activity BLOB AS (zeroblob(900000000)))",
        "INSERT INTO convnet_params SELECT convnet, input_height, input_width FROM old",
    )
    with pytest.raises(InputError):
        ccv.read(path)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    whole = (TINY / "model-fp16.sqlite3").read_bytes()
    path = tmp_path / "cut.sqlite3"
    for size in (0, 1, 16, 100, 4096, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            ccv.read(path)


def test_damage_that_sqlite_quotes_in_its_message(tmp_path: Path) -> None:
    path = changed(tmp_path)
    data = path.read_bytes()
    assert data.count(b"CREATE TABLE layer_data") == 1
    path.write_bytes(data.replace(b"CREATE TABLE layer_data", b"CREATE TABLE l\xff\xfe( \xff("))
    with pytest.raises(InputError, match="damaged or not a network"):
        ccv.read(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 28_671), st.integers(0, 7)), min_size=1, max_size=40))
def test_flipped_bits_do_no_harm(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    """Either the net still reads (a weight changed) or it is an InputError; never anything else."""
    data = bytearray((TINY / "model-fp16.sqlite3").read_bytes())
    for position, bit in flips:
        data[position % len(data)] ^= 1 << bit
    path = tmp_path / "flipped.sqlite3"
    path.write_bytes(data)
    attempt(lambda: shapes.validate(ccv.read(path)))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    column=st.sampled_from(["type", "input_matrix_rows", "input_matrix_channels", "input_matrix_partition",
                            "input_node_count", "output_rows", "output_count", "output_strides", "output_border",
                            "output_size", "output_kappa", "output_relu"]),
    layer=st.integers(0, 11),
    value=st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
)  # fmt: skip
def test_any_value_in_any_column_does_no_harm(tmp_path: Path, column: str, layer: int, value: object) -> None:
    path = tmp_path / "net.sqlite3"
    shutil.copy(TINY / "model-fp16.sqlite3", path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE layer_params SET {column} = ? WHERE layer = ?", (value, layer))
    attempt(lambda: shapes.validate(ccv.read(path)))
