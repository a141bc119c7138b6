"""`./inv count` and `./inv mca`: parts of a pass, files beside the plugin, tables; and the committed baseline held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from device_tests import prepare
from device_tests.count import files, mca
from device_tests.count.job import CountOrder, measure_all, records_of
from device_tests.count.measure import Counted, Part, Setting, measure, parts_of
from device_tests.count.tables import document, tables_of
from device_tests.deploy import PROGRAM, deploy
from device_tests.devices import Device, counting
from device_tests.devices.counting import COLUMNS, Counts, Mark
from device_tests.devices.qemu_user import QemuUserDevice
from device_tests.errors import InventoryError, ProgramError
from device_tests.program import Bench, Program
from device_tests.program_records import BenchRecord, LayerRecord, LoadRecord, MemoryRecord, PassRecord
from klaus_runtime.errors import KlausError
from reports.formats.table_markdown import render_tables
from toolchains import detect
from toolchains.build import Build

from .small_net import small_plan

SETTING = Setting("lite0", "float", "pass", "cortex-a53", "fp32", "auto", "default")


def _counts(**given: int) -> Counts:
    return Counts(dict.fromkeys(COLUMNS, 0) | given)


def _bench(layers: int, passes: int) -> Bench:
    return Bench(
        LoadRecord(1, 1, 1, 1),
        tuple(PassRecord(index, index == 0, "pass", 1, 0) for index in range(passes)),
        tuple(LayerRecord(index, f"layer-{index}", "conv", 1, 100) for index in range(layers)),
        MemoryRecord(1, 1, 1),
        BenchRecord("m", 1, 1, 1, "auto", "fp32", "pass", True, False, ()),
    )


def _marks(*tags: int | None) -> list[Mark]:
    return [Mark(tag, _counts(alu=10**place)) for place, tag in enumerate(tags)]


def test_the_last_pass_is_parted_by_layers() -> None:
    marks = _marks(10, 999, 1000, 1001, 11, 12, 999, 1000, 1001, 13, None)
    parts = parts_of(marks, _bench(2, 2))
    assert [(part.index, part.name, part.counts.instructions) for part in parts] == [
        (None, "around the layers", 10**6 + 10**9),
        (0, "layer-0", 10**7),
        (1, "layer-1", 10**8),
    ]


def test_layers_of_several_scans_are_added_and_fused_ones_are_empty() -> None:
    parts = parts_of(_marks(10, 999, 1001, 999, 1001, 11, None), _bench(2, 1))
    assert [part.counts.instructions for part in parts] == [10 + 10**3 + 10**5, 0, 10**2 + 10**4]


@pytest.mark.parametrize("tags", [(), (10, 1000), (10, 11), (11, 10), (10, 1000, 1007, 11)])
def test_missing_marks_break_the_contract(tags: tuple[int, ...]) -> None:
    with pytest.raises(ProgramError, match="--mark marked"):
        parts_of([*_marks(*tags), Mark(None, _counts())], _bench(2, 1))


def test_baselines_come_back(tmp_path: Path) -> None:
    path = tmp_path / "baseline.tsv"
    assert files.read_baseline(path) == {}
    given = {replace(SETTING, cpu=cpu): _counts(alu=3, fmla32=7, vload_bytes=16) for cpu in ("max", "cortex-a76")}
    files.write_baseline(given, path)
    assert files.read_baseline(path) == given
    assert list(files.read_baseline(path)) == sorted(given)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text.replace("scheme", "shceme"), "columns must be"),
        (lambda text: text + "lite0\tfloat\n", "fields, not"),
        (lambda text: text.replace("\t7\t", "\t-7\t"), "no whole number"),
        (lambda _: "", "columns must be"),
    ],
)
def test_broken_baselines_are_refused(change: Callable[[str], str], named: str, tmp_path: Path) -> None:
    path = tmp_path / "baseline.tsv"
    files.write_baseline({SETTING: _counts(fmla32=7)}, path)
    path.write_text(change(path.read_text()))
    with pytest.raises(InventoryError, match=named):
        files.read_baseline(path)


def test_a_rise_is_named_and_less_than_half_a_percent_is_not() -> None:
    before = {SETTING: _counts(alu=10000, fmla32=10000)}
    assert files.rises({SETTING: _counts(alu=10040, fmla32=10040)}, before) == []
    assert files.rises({replace(SETTING, cpu="max"): _counts(alu=10**6)}, before) == []
    found = files.rises({SETTING: _counts(alu=10400, fmla32=10000)}, before)
    assert found == [
        "lite0 float pass cortex-a53 fp32: 20,400 instructions, 2.00 % above the baseline's 20,000",
        "lite0 float pass cortex-a53 fp32: 10,200 slots, 2.00 % above the baseline's 10,000",
    ]


def test_peers_and_goals_are_whole() -> None:
    peers, goals = files.read_peers(), files.read_goals()
    places = {(peer.network, peer.job, peer.cpu, peer.mode) for peer in peers}
    assert {(goal.network, goal.job, goal.cpu, goal.mode) for goal in goals} <= places
    best = {
        (network, mode): round(
            min(p.slots for p in peers if (p.network, p.job, p.mode) == (network, "pass", mode)) / 1e5
        )
        for network, mode in (("klaus", "fp32"), ("lite0", "fp32"))
    }
    assert best == {("klaus", "fp32"): 1718, ("lite0", "fp32"): 1026}


def test_tables_say_what_is_over_a_goal(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = _counts(fmla32=100_000_000), _counts(fmla32=110_000_000)
    tables = {}
    for name, counts in (("good", good), ("bad", bad)):
        counted = [Counted(SETTING, (Part(0, "[bold]", "conv", counts, 400_000_000),), 1)]
        counted += [Counted(replace(SETTING, precision="int8"), unavailable="not available in this build")]
        tables[name] = tables_of(counted, {SETTING: good}, files.read_goals(), files.read_peers(), 3)
    total = {name: next(iter(made)).rows[0] for name, made in tables.items()}
    assert [(cell.text, cell.mood) for cell in total["good"][7:]] == [
        ("100", ""),
        ("100 %", "good"),
        ("MNN 102.6", ""),
        ("97 %", "good"),
        ("±0.0 %", "dim"),
    ]
    assert [(cell.text, cell.mood) for cell in total["bad"][7:]] == [
        ("100", ""),
        ("110 %", "bad"),
        ("MNN 102.6", ""),
        ("107 %", "bad"),
        ("+10.0 %", "bad"),
    ]
    text = render_tables(tables["bad"])
    assert "| pass | A53 | fp32 | 110.0 | **110.0** |" in text
    assert "\\[bold\\]" in text
    assert "not available in this build" in text


def test_records_hold_classes_and_reasons() -> None:
    counted = [
        Counted(
            SETTING, (Part(None, "around the layers", "", _counts(alu=4), 0), Part(7, "c", "conv", _counts(dot=2), 8))
        ),
        Counted(replace(SETTING, precision="int8"), unavailable="no int8"),
    ]
    records = list(records_of("r", counted, []))[1:]
    assert [(r.metric, r.subject, r.value, r.message) for r in records] == [
        ("instructions", "", 6, ""),
        ("slots", "", 3, ""),
        ("instructions", "around the layers", 4, ""),
        ("instructions", "layer 7 c", 2, ""),
        ("instructions", "", None, "no int8"),
    ]
    assert (records[0].attributes["dot"], records[0].attributes["precision"]) == (2, "fp32")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"jobs": ("11-patch",)}, "11-patch"),
        ({"precisions": ("fp64",)}, "fp64"),
        ({"cpus": ("-x",)}, "-x"),
        ({"scheme": "klaus-5"}, "klaus-5"),
    ],
)
def test_orders_are_checked_first(given: dict[str, tuple[str, ...] | str], named: str) -> None:
    with pytest.raises(InventoryError, match=named):
        CountOrder(**given)  # type: ignore[arg-type]


def test_orders_have_defaults() -> None:
    assert CountOrder(models=("lite0",)).rows() == [("lite0", "float"), ("lite0", "q4")]
    assert CountOrder(models=("x.klaus",)).rows() == [("x.klaus", "")]
    assert CountOrder(scheme="q8").rows() == [("lite0", "q8"), ("klaus-mobile", "q8")]
    assert CountOrder().precisions_of("cortex-a53") == ("fp32", "int8")


def _counter(make: Callable[..., Device], cpu: str) -> QemuUserDevice:
    if counting.why_not():
        pytest.skip(counting.why_not())
    device = make("qemu-user", count=True, cpu=cpu)
    assert isinstance(device, QemuUserDevice)
    return device


def test_a_net_costs_the_same_every_time(make: Callable[..., Device], arm_build: Build, tmp_path: Path) -> None:
    device = _counter(make, "cortex-a76")
    plan = small_plan(tmp_path)
    sent = deploy(device, {PROGRAM: arm_build.program, "small.klaus": plan.packed})
    setting = replace(SETTING, model="small", cpu="cortex-a76")
    twice = [measure(device, Program(device, sent.program), sent.paths["small.klaus"], setting) for _ in range(2)]
    assert twice[0].parts == twice[1].parts
    assert [part.name for part in twice[0].parts] == ["around the layers", "conv", "mean", "classes"]
    conv = twice[0].parts[1]
    # 8 x 8 x 8 sums of 27 products, four at a time; around it little.
    assert conv.multiplies == 8 * 8 * 8 * 27
    assert conv.multiplies // 4 <= conv.counts.multiply_adds <= conv.multiplies
    assert conv.counts.of["vload_bytes"] > 0
    missing = measure(
        device, Program(device, sent.program), sent.paths["small.klaus"], replace(setting, isa="neon_i8mm")
    )
    assert "this CPU has no" in missing.unavailable


@pytest.mark.slow
def test_the_committed_baseline_holds(arm_build: Build, root: Path) -> None:
    """The gate: a rise of more than half a percent needs a new baseline in the same commit."""
    if counting.why_not():
        pytest.skip(counting.why_not())
    rows = (("lite0", "q4"), ("klaus-mobile", "klaus-mixed"))
    try:
        models = [prepare.prepare(model, scheme, root / ".cache", lambda _: None) for model, scheme in rows]
    except KlausError as error:
        pytest.skip(f"needs both models: {error}")
    orders = (
        (CountOrder(cpus=("cortex-a76",), precisions=("fp32",), jobs=("pass",)), models),
        (CountOrder(cpus=("cortex-a76",), precisions=("fp16", "int8"), jobs=("pass",)), models[:1]),
        (CountOrder(cpus=("cortex-a53", "max"), precisions=("int8",), jobs=("pass",)), models[:1]),
    )
    counted = [each for order, which in orders for each in measure_all(order, arm_build.program, which)]
    baseline = files.read_baseline()
    measured = {each.setting: each.counts for each in counted}
    assert set(measured) <= set(baseline), "no baseline; run: ./inv count --update-baseline"
    risen = files.rises(measured, baseline)
    assert not risen, "\n".join([*risen, "worth it? then: ./inv count --update-baseline"])


def test_the_page_is_drawn_from_the_committed_files(root: Path) -> None:
    drawn = document(files.read_baseline(), files.read_goals(), files.read_peers())
    assert (root / "docs" / "instructions.md").read_text("utf-8") == drawn, "run: ./inv count --update-baseline"


LISTING = """
lib.a(gemm.o):\tfile format elf64-littleaarch64

Disassembly of section .text:

0000000000000000 <tile>:
       0: \tmov\tx3, #4
       4: \tldr\tq0, [x1], #16
       8: \tfmla\tv4.4s, v0.4s, v1.s[0]
       c: \tfmla\tv5.4s, v0.4s, v1.s[1]
      10: \tsubs\tx3, x3, #1
      14: \tb.ne\t0x4 <tile+0x4>
      18: \tcbnz\tx2, 0x0 <tile>
      1c: \tret

0000000000000020 <calls>:
      20: \tbl\t0x0 <tile>
      24: \ttbz\tw0, #3, 0x20 <calls>
      28: \tret
"""


def test_innermost_loops_are_found() -> None:
    (loop,) = mca.loops(LISTING)
    assert (loop.file, loop.function, loop.address, loop.multiply_adds) == ("gemm.o", "tile", 4, 2)
    assert loop.lines[0] == "ldr q0, [x1], #16"
    assert loop.lines[-1] == "b.ne 0x4"


def test_mca_judges_a_loop() -> None:
    if isinstance(detect.llvm_tool("llvm-mca"), detect.Missing):
        pytest.skip("needs llvm-mca of the package llvm-19")
    sums = tuple(f"fmla v{number}.4s, v30.4s, v31.4s" for number in range(24))
    fast = mca.Loop("f.o", "f", 0, (*sums, "subs x0, x0, #1", "b.ne 0x0"))
    slow = mca.Loop("f.o", "f", 0, ("fmla v0.4s, v30.4s, v31.4s",) * 24)
    assert 24 / mca.cycles_of(fast) > 1.9
    assert 24 / mca.cycles_of(slow) < 0.6
    table = mca.table_of([(fast, 12.0), (slow, 96.0)], mca.CPU)
    assert [row[-1].mood for row in table.rows] == ["good", "bad"]
