"""`./inv mca`: multiply-adds a cycle that the inner loops of the built kernels reach, by llvm-mca's model of a core.

The loops come from the disassembly of the library as it is shipped: what the compiler made of the source is measured,
not the source. llvm-mca assumes that every load hits the first-level cache. Its model of Neoverse N1, the core that
Cortex-A76 is, is sound; that of Cortex-A53 is not (it stalls an in-order core where real ones do not) and must not be
tuned to.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_tests.errors import InventoryError, SetupError
from reports.formats.table_console import print_tables
from reports.tables import Cell, Table
from toolchains import detect
from toolchains.build import build

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET, SYMBOL, CPU = "linux-aarch64", "gemm", "neoverse-n1"
WANTED = 1.8  # multiply-adds a cycle; two is what the core can do
LEAST = 8  # multiply-adds in a loop that is worth a line
_ITERATIONS = 200
_FILE = re.compile(r"^.*\((?P<object>[^()]+)\):\s+file format")
_SYMBOL = re.compile(r"^[0-9a-f]+ <(?P<name>[^>]+)>:$")
_LINE = re.compile(r"^\s*(?P<address>[0-9a-f]+):\s+(?P<text>\S.*)$")
_BRANCH = re.compile(r"^(?:b|b\.[a-z]+|cbn?z|tbn?z)\s+(?:.*,\s*)?0x(?P<target>[0-9a-f]+)\b")
_MULTIPLY_ADD = re.compile(
    r"^(?:fml[as]|fml[as]l2?|bfmlal[bt]|[su]dot|usdot|sudot|bfdot|u?s?mmla|bfmmla|mla|mls|[su]mlal2?|[su]mlsl2?)\s"
)


@dataclass(frozen=True, slots=True)
class Loop:
    """An innermost loop of a function."""

    file: str  # of the archive
    function: str
    address: int
    lines: tuple[str, ...]  # instructions, the branch back last

    @property
    def multiply_adds(self) -> int:
        """Vector instructions of an iteration that multiply and add."""
        return sum(_MULTIPLY_ADD.match(line) is not None for line in self.lines)


def mca(symbol: str = "", cpu: str = "") -> int:
    """Builds, prints what the loops reach whose function or file holds `symbol` (default: gemm). Returns 0."""
    symbol, cpu = symbol or SYMBOL, cpu or CPU
    (made,) = build([TARGET], root=ROOT, out=ROOT / "build", progress=_say)
    found = [
        loop for loop in loops(disassemble(made.library)) if symbol in f"{loop.file} {loop.function}" and _counts(loop)
    ]
    if not found:
        raise InventoryError(f"no inner loop with {LEAST} multiply-adds or more in what is called {symbol!r}")
    print_tables([table_of([(loop, cycles_of(loop, cpu)) for loop in found], cpu)])
    return 0


def _counts(loop: Loop) -> bool:
    return loop.multiply_adds >= LEAST


def disassemble(archive: Path) -> str:
    """llvm-objdump's listing of all code of an archive. Raises SetupError without llvm."""
    return _run([_tool("llvm-objdump"), "-d", "--no-show-raw-insn", str(archive)])


def loops(listing: str) -> Iterator[Loop]:
    """Innermost loops that call nothing: from the target of a branch backwards to the branch."""
    file = function = ""
    body: list[tuple[int, str]] = []
    for line in [*listing.splitlines(), "end (end):  file format"]:
        head, symbol, code = _FILE.match(line), _SYMBOL.match(line), _LINE.match(line)
        if head or symbol:
            yield from _loops_of(file, function, body)
            body = []
            file, function = (head["object"], "") if head else (file, symbol["name"] if symbol else "")
        elif code:
            text = re.sub(r"\s+", " ", code["text"].partition("//")[0].partition(" <")[0]).strip()
            body.append((int(code["address"], 16), text))


def _loops_of(file: str, function: str, body: Sequence[tuple[int, str]]) -> Iterator[Loop]:
    spans = []
    for end, (address, text) in enumerate(body):
        branch = _BRANCH.match(text)
        if branch and body[0][0] <= int(branch["target"], 16) <= address:
            start = next((i for i, (at, _) in enumerate(body) if at == int(branch["target"], 16)), None)
            if start is not None:
                spans.append((start, end))
    for start, end in spans:
        inner = any(start <= a and b <= end and (a, b) != (start, end) for a, b in spans)
        lines = [text for _, text in body[start : end + 1]]
        if not inner and not any(re.match(r"(?:bl|blr|ret)\b", text) for text in lines):
            yield Loop(file, function, body[start][0], tuple(lines))


def cycles_of(loop: Loop, cpu: str = CPU) -> float:
    """Cycles an iteration, by llvm-mca's model of a core. Raises SetupError."""
    code = "loop:\n" + "".join(f"{re.sub('0x[0-9a-f]+$', 'loop', x) if _BRANCH.match(x) else x}\n" for x in loop.lines)
    argv = [_tool("llvm-mca"), "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+fullfp16,+fp16fml,+dotprod,+i8mm,+bf16"]
    told = _run([*argv, f"-iterations={_ITERATIONS}"], code)
    total = re.search(r"Total Cycles:\s+(\d+)", told)
    if total is None:
        raise SetupError(f"llvm-mca gives no cycles for {loop.function}: {told[:200]!r}")
    return int(total[1]) / _ITERATIONS


def table_of(measured: Sequence[tuple[Loop, float]], cpu: str) -> Table:
    """One line a loop, the fastest first."""
    rows = []
    for loop, cycles in sorted(measured, key=lambda each: (each[0].file, -each[0].multiply_adds / each[1])):
        rate = loop.multiply_adds / cycles
        rows.append(
            (
                Cell(loop.file.removesuffix(".o")),
                Cell(f"{loop.function}+{loop.address:#x}"),
                Cell(str(len(loop.lines))),
                Cell(str(loop.multiply_adds)),
                Cell(f"{cycles:.1f}"),
                Cell(f"{rate:.2f}", "good" if rate >= WANTED else "bad"),
            )
        )
    columns = ("file", "loop", "instructions", "multiply-adds", "cycles", "multiply-adds a cycle")
    note = (
        f"{WANTED} or more is wanted of the main tiles; edge tiles hold too few sums to hide a multiply-add's latency."
    )
    return Table(
        f"inner loops, llvm-mca's {cpu}", columns, (False, False, True, True, True, True), tuple(rows), (note,)
    )


def _tool(command: str) -> str:
    found = detect.llvm_tool(command)
    if isinstance(found, detect.Missing):
        raise SetupError(f"{found.name}: {found.reason}; mend it with: {found.remedy}")
    return found.argv[0]


def _run(argv: Sequence[str], text: str | None = None) -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise SetupError(f"{Path(argv[0]).name} fails: {done.stderr.strip()[:600]}")
    return done.stdout


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
