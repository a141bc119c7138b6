"""kernels.def, the files in kernels/ops and the names of variants follow one grammar: one word finds a whole room."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPS = ROOT / "kernels" / "ops"
LINE = re.compile(r"^KLAUS_KERNEL\((\w+), (\w+), (\w+), (\w+), (\w+), (\w+), (\w+)\)$")
ISAS = {"ref", "neon", "neon_fp16", "neon_dotprod", "neon_i8mm"}
# Rooms whose kernels are checked and timed as another op: they compute the same.
CHECKED_AS = {
    "depthwise": "conv",
    "winograd": "conv",
    "full_connect_mapped": "full_connect",
    "pointwise_mapped": "conv",
}


def kernel_lines() -> list[tuple[str, ...]]:
    text = (ROOT / "kernels" / "kernels.def").read_text()
    lines = [line for line in text.splitlines() if line.startswith("KLAUS_KERNEL")]
    matches = [LINE.match(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if match is None]
    return [match.groups() for match in matches if match is not None]


@pytest.mark.parametrize("line", kernel_lines(), ids=lambda line: line[0])
def test_a_kernel_stands_where_its_name_says(line: tuple[str, ...]) -> None:
    name, op, dtype, isa, arch, core, tile = line
    assert isa in ISAS
    assert arch in {"any", "arm", "arm64"}
    assert core in {"any", "inorder", "outoforder"}
    words = ["klaus", op, dtype, isa, *([core] if core != "any" else []), *([tile] if tile != "none" else [])]
    assert name == "_".join(words)
    suffix = isa + ("64" if (isa, arch) == ("neon", "arm64") else "")
    own = OPS / op / f"{op}_{dtype}_{suffix}.c"  # a dtype's own file, where the op has one
    source = (own if own.is_file() else OPS / op / f"{op}_{suffix}.c").read_text()
    assert f"const klaus_variant {name} = {{" in source
    assert f'.name = "{name}"' in source
    assert (OPS / CHECKED_AS.get(op, op) / f"check_{CHECKED_AS.get(op, op)}.c").is_file()


def test_every_variant_is_in_the_list() -> None:
    defined = {
        name
        for path in OPS.rglob("*.c")
        for name in re.findall(r"^const klaus_variant (\w+) = \{", path.read_text(), re.MULTILINE)
    }
    assert defined == {line[0] for line in kernel_lines()}


def test_every_op_begins_with_its_oracle() -> None:
    first: dict[str, str] = {}
    for _, op, _, isa, *_ in kernel_lines():
        first.setdefault(CHECKED_AS.get(op, op), isa)
    assert set(first.values()) == {"ref"}
