"""Batches of pictures: every malformed one is refused before the first answer."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from klaus_runtime import pack
from tests.kernels.conftest import Klaus

Models = dict[str, Path]
MAGIC = b"KLAUSBT\x1a"


def batch(*pictures: bytes, version: int = 1, count: int | None = None) -> bytes:
    return MAGIC + struct.pack("<II", version, len(pictures) if count is None else count) + b"".join(pictures)


def picture(
    rows: int = 2, cols: int = 3, name: bytes = b"id", pixels: int | None = None, size: int | None = None
) -> bytes:
    fields = struct.pack("<III", len(name) if size is None else size, rows, cols)
    return fields + name + bytes(rows * cols * 3 if pixels is None else pixels)


GOOD = batch(picture(), picture(5, 4, b"other"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"K", "is no batch of pictures"),
        (b"KLAUSPM\x1a" + GOOD[8:], "is no batch of pictures"),
        (GOOD[:15], "is no batch of pictures"),
        (batch(picture(), version=2), "is a batch of version 2"),
        (batch(picture(), count=2), "picture 1 of 2"),
        (batch(picture(), count=0xFFFFFFFF), "picture 1 of 4294967295"),
        (batch(count=1), "picture 0 of 1"),
        (GOOD[:-1], "picture 1 of 2"),
        (GOOD[:20], "picture 0 of 2"),
        (GOOD + b"\0", "1 bytes stand behind its last picture"),
        (batch(picture(), picture(), count=1), "bytes stand behind its last picture"),
        (batch(picture(0, 3)), "picture 0 of 1"),
        (batch(picture(2, 0)), "picture 0 of 1"),
        (batch(picture(65537, 1)), "picture 0 of 1"),
        (batch(picture(65536, 65536, pixels=100)), "picture 0 of 1"),
        (batch(picture(0xFFFFFFFF, 0xFFFFFFFF, pixels=100)), "picture 0 of 1"),
        (batch(picture(0x80000000, 2, pixels=0)), "picture 0 of 1"),
        (batch(picture(name=b"")), "picture 0 of 1"),
        (batch(picture(size=256)), "picture 0 of 1"),
        (batch(picture(size=0xFFFFFFFF)), "picture 0 of 1"),
    ],
)
def test_malformed_batches(klaus: Klaus, models: Models, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "batch"
    path.write_bytes(content)
    said = klaus("classify", "--model", models["every_op"], "--images", path, code=2)
    assert message in said.stderr
    assert str(path) in said.stderr
    assert not said.records


def test_every_cut_of_a_batch(klaus: Klaus, models: Models, tmp_path: Path) -> None:
    path = tmp_path / "batch"
    for length in range(1, len(GOOD), 7):
        path.write_bytes(GOOD[:length])
        assert not klaus("classify", "--model", models["every_op"], "--images", path, code=2).records


def test_an_empty_batch_and_hostile_ids(klaus: Klaus, models: Models, tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(batch())
    assert not klaus("classify", "--model", models["every_op"], "--images", path).records
    names = [b"a", b'"\\', b"\x1b[2J", b"\n{", b"x" * 255, "🦊".encode(), b"\xff\xfe"]
    path.write_bytes(batch(*[picture(name=name) for name in names]))
    said = klaus("classify", "--model", models["every_op"], "--images", path, "--top", 1)
    assert [record["id"] for record in said.records] == [name.decode("utf-8", "replace") for name in names]


@pytest.mark.parametrize(
    ("model", "size", "options", "message"),
    [
        ("scanned", (1, 60000), [], "too thin, crop it first"),
        ("scanned", (60000, 20), [], "too thin, crop it first"),
        ("scanned", (30, 30), ["--crop", "none"], "need a centre crop"),
        ("scanned", (30, 30), ["--crop", "none", "--patches", "1"], "always crops its pictures"),
        ("scanned", (30, 30), ["--patches", "3"], "3 patches were asked for; 1 and 10 can be"),
        ("every_op", (30, 30), ["--patches", "10"], "does not cut patches"),
        ("softmax", (30, 30), [], "takes tensors, not pictures"),
    ],
)
def test_pictures_that_a_model_does_not_take(
    klaus: Klaus,
    models: Models,
    tmp_path: Path,
    model: str,
    size: tuple[int, int],
    options: list[str],
    message: str,
) -> None:
    good = np.zeros((30, 30, 3), np.uint8)
    path = pack.write_batch(tmp_path / "batch", [("good", good), ("\x1b[31mbad", np.zeros((*size, 3), np.uint8))])
    said = klaus("classify", "--model", models[model], "--images", path, *options, code=2)
    assert message in said.stderr
    assert "picture " in said.stderr
    assert len(said.records) == (1 if "thin" in message else 0)


def test_many_sizes_in_one_session(klaus: Klaus, models: Models, tmp_path: Path) -> None:
    """More sizes of whole crops than plans are kept for; each answer is that of the picture alone."""
    random = np.random.default_rng(2)
    sizes = [(19, 19 + 2 * step) for step in range(9)] + [(19 + 2 * step, 19) for step in range(9)]
    pictures = [(f"{rows}x{cols}", random.integers(0, 256, (rows, cols, 3), dtype=np.uint8)) for rows, cols in sizes]
    pictures += pictures[:5]
    path = pack.write_batch(tmp_path / "batch", pictures)
    together = klaus("classify", "--model", models["scanned"], "--images", path).records
    for (name, pixels), record in zip(pictures, together, strict=True):
        alone = pack.write_batch(tmp_path / "alone", [(name, pixels)])
        assert klaus("classify", "--model", models["scanned"], "--images", alone).one("picture")["top"] == record["top"]
