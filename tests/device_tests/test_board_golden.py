"""ccv's golden nets through NEON on an emulated board: a real kernel, the deployed program, files sent and fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from device_tests.deploy import deploy
from device_tests.devices import DeviceSpec
from device_tests.devices.board import BoardDevice
from device_tests.program import Program
from klaus_runtime import images
from klaus_runtime.model import F32, Model
from klaus_runtime.pack import pack, write_batch
from klaus_runtime.registry import load_model
from tests.device_tests.test_board import NEEDS
from tests.klaus_runtime.golden import (
    TINY,
    TINY_QUANT,
    assert_ranks,
    large,
    listed,
    only,
    ranks,
    tensor,
    worst_difference,
)
from toolchains.build import Build

pytestmark = [NEEDS, pytest.mark.slow]
THREADS = ("--threads", "2")
PASS_S, JOB_S = 900.0, 1800.0  # emulated, on a computer that may be busy


@pytest.fixture(scope="module")
def board(root: Path) -> Iterator[BoardDevice]:
    """A Cortex-A76 with room for the large net and all its activations."""
    options: dict[str, str | int | float | bool] = {"cpu": "cortex-a76", "cpus": 2, "memory_mb": 1024, "disk_mb": 256}
    device = BoardDevice(DeviceSpec("board-golden", "board", "linux-aarch64", options, root / ".cache"))
    device.open()
    yield device
    device.close()


class Golden:
    """A model on the board."""

    def __init__(self, board: BoardDevice, build: Build, model: Model, folder: Path) -> None:
        self.board, self.folder = board, folder
        path = pack(model, folder / "golden.klaus")
        deployed = deploy(board, {"klaus-run": build.program, "golden.klaus": path})
        self.model, self.program = deployed.paths["golden.klaus"], Program(board, deployed.program)
        steps = self.program.plan(self.model, options=THREADS)
        assert all("_neon" in step.variant for step in steps if step.op in ("conv", "full_connect", "lrn"))

    def put(self, local: Path) -> PurePosixPath:
        remote = self.board.root / "golden" / local.name
        self.board.put(local, remote, timeout_s=300)
        return remote

    def activations(self, given: F32) -> Iterator[F32]:
        (self.folder / "input.f32").write_bytes(given.astype("<f4").tobytes())
        remote = self.put(self.folder / "input.f32")
        out = self.board.root / "golden" / "activations"
        for record, path in self.program.activations(self.model, remote, out, options=THREADS, timeout_s=PASS_S):
            self.board.get(path, self.folder / "layer.f32", timeout_s=300)
            values = np.fromfile(self.folder / "layer.f32", "<f4")
            yield values.reshape(record.rows, record.cols, record.channels)
        self.board.remove(out, timeout_s=60)

    def ten_patches(self, photo: Path, classes: int) -> F32:
        batch = self.put(write_batch(self.folder / "batch", [(photo.stem, images.read_picture(photo))]))
        (answer,) = self.program.classify(self.model, batch, top=classes, patches=10, options=THREADS, timeout_s=JOB_S)
        assert answer.id == photo.stem
        return listed(((entry.id, entry.probability) for entry in answer.top), classes)


@pytest.mark.parametrize("form", ["fp32", "fp16"])
def test_tiny(board: BoardDevice, arm_build: Build, tmp_path: Path, form: str) -> None:
    golden = Golden(board, arm_build, load_model(str(TINY / f"model-{form}.sqlite3")), tmp_path)
    for number in range(3):
        wanted = map(tensor, sorted((TINY / f"acts-{form}-{number}").iterdir()))
        assert worst_difference(golden.activations(tensor(only(TINY, f"input-{number}-*"))), wanted) <= 1e-5
    for photo in sorted((TINY / "images").glob("*.png")):
        name = photo.stem.rpartition("-")[0]
        wanted_ranks = ranks(photo.parent / f"{name}.classify-{form}-sym1.txt")
        assert_ranks(golden.ten_patches(photo, 10), wanted_ranks, first=5)


@pytest.mark.parametrize("form", ["a-depth8-index", "b-depth4-index", "c-depth4-expanded"])
def test_tiny_from_codebooks(board: BoardDevice, arm_build: Build, tmp_path: Path, form: str) -> None:
    pictures = {int(path.stem.split("-")[1]): path for path in (TINY_QUANT / form).glob("layer-*.png")}
    model = load_model(str(TINY_QUANT / form / "model.sqlite3"), layers=pictures)
    golden = Golden(board, arm_build, model, tmp_path)
    wanted = map(tensor, sorted((TINY_QUANT / "acts-0").iterdir()))
    assert worst_difference(golden.activations(tensor(only(TINY, "input-0-*"))), wanted) <= 1e-5


def test_the_large_net(board: BoardDevice, arm_build: Build, shared: Path, tmp_path: Path) -> None:
    folder, model = large(shared)
    golden = Golden(board, arm_build, model, tmp_path)
    wanted = map(tensor, sorted((folder / "acts-0").iterdir()))
    assert worst_difference(golden.activations(tensor(only(folder, "input-0-*"))), wanted) <= 1e-5
    photo = folder / "n01440764_tench.decoded.png"
    wanted_ranks = ranks(folder / "n01440764_tench.classify-sym1.txt")
    assert_ranks(golden.ten_patches(photo, 1000), wanted_ranks, first=5)
