"""The main job's own steps: what was asked is checked first, models are prepared once, devices fail alone."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from device_tests import pipeline, prepare
from device_tests.errors import InventoryError
from klaus_runtime.errors import KlausError
from klaus_runtime.pack import Layout, add_layouts, carried, pack, read_packed
from klaus_runtime.registry import load_model
from toolchains.build import Build
from toolchains.build import build as compile_targets
from toolchains.errors import BuildError


@pytest.fixture
def tiny(root: Path, tmp_path: Path) -> Path:
    """The smallest golden net, as a file of the user's."""
    source = next((root / "tests" / "data").rglob("model-fp32.sqlite3"))
    return Path(shutil.copy2(source, tmp_path / "tiny.sqlite3"))


def farm(folder: Path, *tables: str) -> Path:
    file = folder / "devices.toml"
    file.write_text("\n".join(tables))
    return file


USER = '[devices.user]\nkind = "qemu-user"\ntarget = "linux-aarch64"\n'


def test_a_model_is_prepared_once(tiny: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = prepare.prepare(str(tiny), "q8", tmp_path / "cache", said.append)
    assert said
    assert first.scheme == "q8"
    package = list((first.packed.parent / "package").iterdir())
    assert first.package_bytes == sum(path.stat().st_size for path in package)
    assert first.packed_bytes == first.packed.stat().st_size
    assert first.effective_bits == 8 * first.package_bytes / first.weights
    assert read_packed(first.packed).provenance.scheme == "q8"
    stamp = first.packed.stat().st_mtime_ns
    said.clear()
    again = prepare.prepare(str(tiny), "q8", tmp_path / "cache", said.append)
    assert (again, said, again.packed.stat().st_mtime_ns) == (first, [], stamp)


def test_int8_is_prepared_apart_and_planned_where_it_will_be(tiny: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    plain = prepare.prepare(str(tiny), "q8", cache, lambda _: None)
    ranged = prepare.prepare(str(tiny), "q8", cache, lambda _: None, calibrated=True)
    assert (plain.calibrated, ranged.calibrated) == (False, True)
    assert prepare.planned(str(tiny), "q8", cache) == plain.packed
    assert prepare.planned(str(tiny), "q8", cache, calibrated=True) == ranged.packed


def test_a_packed_model_with_layouts_is_sent_as_it_is(arm_build: Build, tiny: Path, tmp_path: Path) -> None:
    """Its weights need no packing on the device; one without layouts is packed anew."""
    plain = pack(load_model(str(tiny)), tmp_path / "plain.klaus")
    laid = tmp_path / "laid.klaus"
    add_layouts(plain, [Layout("a76", "fp32")], laid)
    prepared = prepare.prepare(str(laid), "", tmp_path / "cache", lambda _: None)
    assert prepared.packed.read_bytes() == laid.read_bytes()
    assert prepared.package_bytes > 0
    ranged = prepare.prepare(str(laid), "", tmp_path / "cache", lambda _: None, calibrated=True)
    assert ranged.calibrated
    assert carried(ranged.packed).sections == 0
    quantized = prepare.prepare(str(laid), "q8", tmp_path / "cache", lambda _: None)
    assert (quantized.scheme, read_packed(quantized.packed).provenance.scheme) == ("q8", "q8")
    assert carried(prepare.prepare(str(plain), "", tmp_path / "cache", lambda _: None).packed).sections == 0


@pytest.mark.parametrize("what", ["first", "middle", "last", "json", "truncated", "gone", "unreadable"])
def test_a_damaged_cache_is_made_once_more(tiny: Path, tmp_path: Path, what: str) -> None:
    said: list[str] = []
    first = prepare.prepare(str(tiny), "q8", tmp_path / "cache", said.append)
    whole = first.packed.read_bytes()
    facts = first.packed.parent / "prepared.json"
    match what:
        case "json":
            facts.write_text("{")
        case "truncated":
            first.packed.write_bytes(whole[:-100])
        case "gone":
            first.packed.unlink()
        case "unreadable":
            facts.unlink()
            facts.mkdir()
        case _:
            at = {"first": 0, "middle": len(whole) // 2, "last": len(whole) - 1}[what]
            first.packed.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    said.clear()
    assert prepare.prepare(str(tiny), "q8", tmp_path / "cache", said.append) == first
    assert "damaged" in said[0]
    assert first.packed.read_bytes() == whole
    said.clear()
    assert prepare.prepare(str(tiny), "q8", tmp_path / "cache", said.append) == first
    assert not said


def test_another_scheme_or_another_file_is_prepared_anew(tiny: Path, tmp_path: Path) -> None:
    def packed(scheme: str) -> Path:
        return prepare.prepare(str(tiny), scheme, tmp_path / "cache", lambda _: None).packed

    before = packed("q8")
    assert packed("klaus-4") != before
    assert packed("") == packed("float")
    other = bytearray(tiny.read_bytes())
    other.extend(b"\0")  # sqlite ignores what stands behind its pages; the bytes are others all the same
    tiny.write_bytes(other)
    assert packed("q8") != before


def test_a_broken_model_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    tiny.write_bytes(tiny.read_bytes()[:2000])
    with pytest.raises(KlausError):
        prepare.prepare(str(tiny), "q8", tmp_path / "cache", lambda _: None)
    assert [path.name for path in (tmp_path / "cache").rglob("*")] == []


def test_what_was_asked_is_checked_before_anything_runs(tmp_path: Path) -> None:
    file = str(farm(tmp_path, USER))
    order = pipeline.Order.asked(["linux-aarch64"], inventory=file)
    assert [spec.name for spec in order.devices] == ["user"]
    assert order.models == pipeline.DEFAULT_MODELS
    assert len(order.suites) == 4
    with pytest.raises(InventoryError, match="no device of the farm runs ios"):
        pipeline.Order.asked(["ios"], inventory=file)
    twice = pipeline.Order.asked(models=["lite0", "lite0"], suites=["timing", "timing"], inventory=file)
    assert (twice.models, twice.suites) == (("lite0",), ("timing",))
    assert (order.precisions, order.memory) == (("fp32",), "default")
    both = pipeline.Order.asked(precisions=["int8", "fp16", "int8"], memory="lean", inventory=file)
    assert (both.precisions, both.memory) == (("int8", "fp16"), "lean")
    with pytest.raises(InventoryError, match="precision 'fp8' is unknown: there are fp32, fp16, int8"):
        pipeline.Order.asked(precisions=["fp8"], inventory=file)
    with pytest.raises(InventoryError, match="memory 'fat' is unknown: there are default, lean"):
        pipeline.Order.asked(memory="fat", inventory=file)


def test_int8_of_a_file_without_ranges_is_one_clear_message(tiny: Path, tmp_path: Path) -> None:
    order = pipeline.Order.asked(models=[str(tiny)], precisions=["int8"], inventory=str(farm(tmp_path, USER)), yes=True)
    with pytest.raises(InventoryError, match="int8 needs the activation range of every layer; `klaus calibrate"):
        pipeline.deploy_and_bench(order)


def test_deploy_sends_once_and_a_dead_device_fails_alone(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "CACHE", tmp_path / "cache")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
    dead = (
        f'[devices.dead]\nkind = "ssh"\ntarget = "linux-aarch64"\nhost = "127.0.0.1"\nport = {port}\n'
        f'user = "nobody"\nhost_key = "{key}"\n'
    )
    file = str(farm(tmp_path, dead, USER))
    order = pipeline.Order.asked(models=[str(tiny)], scheme="q8", inventory=file)
    assert pipeline.deploy(order) == 4
    first = capsys.readouterr()
    assert "dead" in first.err
    assert "user: " in first.out
    assert "user: 0 bytes sent" not in first.out
    assert pipeline.deploy(order) == 4
    assert "user: 0 bytes sent" in capsys.readouterr().out
    assert pipeline.list_devices(file) == 4
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in listed] == [
        ["dead", "ssh", "linux-aarch64"],
        ["user", "qemu-user", "linux-aarch64"],
    ]
    assert "answers" in listed[1]
    assert "no: " in listed[0]


DEAD = '[devices.dead]\nkind = "ssh"\ntarget = "linux-aarch64"\nhost = "127.0.0.1"\nport = 1\nuser = "nobody"\n'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "builds", "code"),
    [([USER], True, 0), ([USER], False, 1), ([USER, DEAD], True, 4), ([USER, DEAD], False, 4)],
    ids=["all well", "a target does not build", "a device is away", "both"],
)
def test_nightly_ends_with_the_worst_status(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: list[str], builds: bool, code: int
) -> None:
    """The real program under qemu's user mode; what could be measured is measured in each case."""
    monkeypatch.setattr(pipeline, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(pipeline, "RESULTS", tmp_path / "results")
    if not builds:

        def one_breaks(names: Sequence[str], **options: Any) -> list[Build]:
            if not names:  # nightly's own call: all that this computer can build
                raise BuildError("ios: kernels/engine/run.c: clang failed (exit code 1)")
            return compile_targets(names, **options)

        monkeypatch.setattr(pipeline, "compile_targets", one_breaks)
    file = str(farm(tmp_path, *devices))
    order = pipeline.Order.asked(models=[str(tiny)], scheme="q8", suites=["timing"], inventory=file)
    assert pipeline.nightly(order) == code
    (journal,) = (tmp_path / "results").glob("*/records.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    passed = {one["device"] for one in records if one["metric"] == "test" and one["status"] == "PASS"}
    assert passed == {"user"}
    assert (journal.parent / "report.md").exists()


def test_dry_run_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BUILD", tmp_path / "build")
    monkeypatch.setattr(pipeline, "CACHE", tmp_path / "cache")
    board = '[devices.board]\nkind = "board"\n'
    order = pipeline.Order.asked(inventory=str(farm(tmp_path, USER, board)), dry_run=True)
    assert pipeline.deploy_and_bench(order) == 0
    said = capsys.readouterr().out
    assert " cc -target aarch64-linux-musl " in said
    assert "klaus-run bench --model" in said
    assert "--precision" not in said
    order = pipeline.Order.asked(
        inventory=str(farm(tmp_path, USER)), precisions=["fp32", "int8"], suites=["timing"], dry_run=True
    )
    assert pipeline.deploy_and_bench(order) == 0
    benches = [line for line in capsys.readouterr().out.splitlines() if "klaus-run bench" in line]
    assert [line.endswith(" --precision int8 --memory default") for line in benches] == [False, True] * 2
    program = tmp_path / "build" / "linux-aarch64" / "klaus-run"
    assert f"&& cp {program} {tmp_path}/cache/devices/user/store/SHA256/klaus-run  # once it is made" in said
    assert f" {program} root@127.0.0.1:/data/klaus/store/SHA256/klaus-run  # once it is made" in said
    assert not (tmp_path / "build").exists()
    assert not (tmp_path / "cache").exists()


def test_dry_run_names_what_is_there_by_its_digest(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "CACHE", tmp_path / "cache")
    plan = prepare.prepare(str(tiny), "q8", tmp_path / "cache", lambda _: None)
    order = pipeline.Order.asked(models=[str(tiny)], scheme="q8", inventory=str(farm(tmp_path, USER)), dry_run=True)
    assert pipeline.deploy(order) == 0
    said = capsys.readouterr().out
    remote = f"{tmp_path}/cache/devices/user/store/{plan.sha256[:32]}/{plan.packed.name}"
    assert f"cp {plan.packed} {remote}  # {plan.packed_bytes} bytes, unless they are there" in said
    assert "klaus-run bench" not in said  # deploy runs no suite
