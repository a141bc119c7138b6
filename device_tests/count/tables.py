"""Counts beside goals, peers and baseline as plain tables, and the page docs/instructions.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from device_tests.count.files import MAX_RISE, Goal, Peer
from device_tests.count.measure import FULL_CONNECTS, Counted, Part, Setting
from device_tests.devices.counting import CLASSES, Counts
from reports.formats.table_markdown import render_tables
from reports.tables import Cell, Mood, Table
from reports.words import NOTHING, signed_share

NETWORKS = {"lite0": "lite0", "klaus-mobile": "klaus"}  # our models by the networks of peers.tsv and goals.tsv
REACHED = 1.03  # of a goal: within 3 % counts
_SHARE_OF_PASSES = "of-ten-passes"
_TITLES = ("job", "CPU", "mode", "instructions", "slots", "mul-adds", "MB loaded", "goal", "of it")
_LAYER_TITLES = (
    *("layer", "name", "op", "all", "share", "slots", "mul-adds", "vector", "vload", "memory", "branch", "alu"),
    *("MB", "direct"),
)

_PREFACE = """\
# Executed instructions

What the device program executes for one job on one thread, counted by class under qemu's user mode, beside what other
engines execute for the same work. The numbers repeat to the instruction on every computer. They are no times: compare
them for one CPU, and look at the loads besides.

- **pass**: from the user's tensor to probabilities. **10-patch**: from the formed picture to averaged probabilities,
  mirror and crops included. **fc-10**: the fully connected layers of the 10-patch job, ten rows at once, straight from
  packed indices.
- **instructions** leave prefetches out, on both sides. **slots** = the largest of: vector arithmetic; 64-bit memory
  accesses, a 128-bit one counted twice; half of all instructions. That is what an in-order core of Cortex-A53's kind
  cannot do without, and raw counts mislead there.
- CPU **max** has all that qemu emulates: what is counted there is int8 by matrix multiplies (`neon_i8mm`).
- **MB loaded** are the bytes that vector loads read. **multiply-adds** are vector instructions of every width.

Everything here is drawn from `baseline.tsv`, `peers.tsv` and `goals.tsv` in `device_tests/devices/count/`.
`./inv count` measures anew and prints each network's most expensive layers too; `./inv count --update-baseline` writes
this page. A count that rises by more than 0.5 % against the baseline fails the tests.

"""


def tables_of(
    counted: Sequence[Counted],
    baseline: Mapping[Setting, Counts],
    goals: Sequence[Goal],
    peers: Sequence[Peer],
    layers: int,
) -> list[Table]:
    """For the terminal: totals by model, the budget by class, the most expensive layers of each pass."""
    measured = {each.setting: each.counts for each in counted if each.parts}
    found = [*totals(measured, goals, peers, baseline), *budgets(measured)]
    found += [hot_layers(each, layers) for each in counted if each.parts and each.setting.job != FULL_CONNECTS]
    missing = dict.fromkeys(f"{each.setting.precision}: {each.unavailable}" for each in counted if each.unavailable)
    if missing:
        rows = tuple((Cell(reason, "dim"),) for reason in missing)
        found.append(Table("not counted", ("why",), (False,), rows))
    return [table for table in found if table.rows]


def document(baseline: Mapping[Setting, Counts], goals: Sequence[Goal], peers: Sequence[Peer]) -> str:
    """docs/instructions.md."""
    return _PREFACE + render_tables([*totals(baseline, goals, peers), *budgets(baseline), _peer_table(peers)])


def totals(
    measured: Mapping[Setting, Counts],
    goals: Sequence[Goal],
    peers: Sequence[Peer],
    baseline: Mapping[Setting, Counts] | None = None,
) -> list[Table]:
    """One table a model and scheme: each job beside its goal, the best peer and the baseline."""
    found = []
    for model, scheme in dict.fromkeys((setting.model, setting.scheme) for setting in measured):
        rows = []
        for setting, counts in measured.items():
            if (setting.model, setting.scheme) == (model, scheme):
                row = _total_row(setting, measured, goals, peers)
                rows.append((*row, _since(counts, baseline.get(setting))) if baseline is not None else row)
        more = ("best peer", "of it", *(("since",) if baseline is not None else ()))
        right = (False, False, False, *[True] * 6, False, *[True] * (len(more) - 1))
        found.append(Table(f"{model}, {scheme} weights, millions", (*_TITLES, *more), right, tuple(rows)))
    return found


def _total_row(
    setting: Setting, measured: Mapping[Setting, Counts], goals: Sequence[Goal], peers: Sequence[Peer]
) -> tuple[Cell, ...]:
    counts = measured[setting]
    place = (NETWORKS.get(setting.model, ""), setting.job, setting.cpu, setting.precision)
    goal = next((goal for goal in goals if (goal.network, goal.job, goal.cpu, goal.mode) == place), None)
    metric = "slots" if setting.cpu == "cortex-a53" else "instructions"
    if goal is not None and goal.metric != _SHARE_OF_PASSES:
        metric = goal.metric
    value = counts.slots if metric == "slots" else counts.instructions
    aim, reached = _against_goal(goal, setting, measured, value)
    rivals = [peer for peer in peers if (peer.network, peer.job, peer.cpu, peer.mode) == place]
    best = min(rivals, key=lambda peer: peer.slots if metric == "slots" else peer.instructions, default=None)
    versus, share = Cell(NOTHING, "dim"), Cell(NOTHING, "dim")
    if best is not None:
        theirs = best.slots if metric == "slots" else best.instructions
        versus = Cell(f"{best.peer.split()[0]} {_millions(theirs)}")
        share = Cell(f"{100 * value / theirs:.0f} %", "good" if value <= theirs else "bad")
    strong: tuple[Mood, Mood] = ("", "strong") if metric == "slots" else ("strong", "")
    return (
        Cell(setting.job + _unusual(setting)),
        Cell(_core(setting.cpu)),
        Cell(setting.precision),
        Cell(_millions(counts.instructions), strong[0]),
        Cell(_millions(counts.slots), strong[1]),
        Cell(_millions(counts.multiply_adds)),
        Cell(_millions(counts.of["vload_bytes"])),
        aim,
        reached,
        versus,
        share,
    )


def _against_goal(
    goal: Goal | None, setting: Setting, measured: Mapping[Setting, Counts], value: int
) -> tuple[Cell, Cell]:
    if goal is None:
        return Cell(NOTHING, "dim"), Cell(NOTHING, "dim")
    if goal.metric == _SHARE_OF_PASSES:
        one = next((c for s, c in measured.items() if s.job == "pass" and _same_but_job(s, setting)), None)
        if one is None:
            return Cell(f"{goal.figure:g} x 10"), Cell(NOTHING, "dim")
        mine = one.slots if setting.cpu == "cortex-a53" else one.instructions
        figure, aim = 10 * mine * goal.figure, f"{goal.figure:g} x 10"
    else:
        figure, aim = goal.figure * 1e6, f"{goal.figure:g}"
    return Cell(aim), Cell(f"{100 * value / figure:.0f} %", "good" if value <= figure * REACHED else "bad")


def _same_but_job(one: Setting, other: Setting) -> bool:
    return (one.model, one.scheme, one.cpu, one.precision, one.isa, one.memory) == (
        other.model,
        other.scheme,
        other.cpu,
        other.precision,
        other.isa,
        other.memory,
    )


def _since(counts: Counts, before: Counts | None) -> Cell:
    if before is None:
        return Cell("new", "dim")
    change = max(counts.instructions / before.instructions, counts.slots / before.slots) - 1
    mood: Mood = "bad" if change > MAX_RISE else "good" if change < -MAX_RISE else "dim"
    return Cell(signed_share(change), mood)


def budgets(measured: Mapping[Setting, Counts]) -> list[Table]:
    """Millions of each class that occurs: one table a model and scheme, one row a setting."""
    found = []
    for model, scheme in dict.fromkeys((setting.model, setting.scheme) for setting in measured):
        mine = {s: counts for s, counts in measured.items() if (s.model, s.scheme) == (model, scheme)}
        classes = [c for c in CLASSES if any(counts.of[c] * 1000 >= counts.instructions for counts in mine.values())]
        rows = tuple(
            (
                Cell(setting.job + _unusual(setting)),
                Cell(_core(setting.cpu)),
                Cell(setting.precision),
                *(Cell(_millions(counts.of[name]), "" if counts.of[name] else "dim") for name in classes),
            )
            for setting, counts in mine.items()
        )
        right = (False, False, False, *[True] * len(classes))
        found.append(
            Table(f"{model}, {scheme} weights: classes, millions", ("job", "CPU", "mode", *classes), right, rows)
        )
    return found


def hot_layers(counted: Counted, most: int) -> Table:
    """The most expensive layers; `direct` is a multiply-add of four float32 for each four that one pass needs."""
    all_of = counted.counts
    hot = sorted(counted.parts, key=lambda part: -part.counts.instructions)[:most]
    rows = tuple(_layer_row(part, all_of) for part in hot if part.counts.instructions)
    return Table(f"{counted.setting}, millions", _LAYER_TITLES, (True, False, False, *[True] * 11), rows)


def _layer_row(part: Part, all_of: Counts) -> tuple[Cell, ...]:
    counts = part.counts
    of = counts.of
    memory = of["vstore"] + of["gload"] + of["gstore"]
    return (
        Cell(NOTHING if part.index is None else str(part.index)),
        Cell(part.name),
        Cell(part.op),
        Cell(_millions(counts.instructions), "strong"),
        Cell(f"{100 * counts.instructions / all_of.instructions:.1f} %"),
        Cell(_millions(counts.slots)),
        *(
            Cell(_millions(number))
            for number in (
                counts.multiply_adds,
                counts.vector_arithmetic - counts.multiply_adds,
                of["vload"],
                memory,
                of["branch"],
                of["alu"],
                of["vload_bytes"],
            )
        ),
        Cell(_millions(part.multiplies // 4) if part.multiplies else NOTHING, "dim"),
    )


def _peer_table(peers: Sequence[Peer]) -> Table:
    rows = tuple(
        (
            *(Cell(text) for text in (peer.network, peer.job, _core(peer.cpu), peer.mode, peer.peer, peer.options)),
            *(
                Cell(_millions(number))
                for number in (peer.instructions, peer.slots, peer.multiply_adds, peer.vector_load_bytes)
            ),
        )
        for peer in peers
    )
    columns = ("network", "job", "CPU", "mode", "peer", "options", "instructions", "slots", "mul-adds")
    return Table("The peers, millions", (*columns, "MB loaded"), (*[False] * 6, *[True] * 4), rows)


def _core(cpu: str) -> str:
    return cpu.removeprefix("cortex-").upper() if cpu.startswith("cortex-") else cpu


def _unusual(setting: Setting) -> str:
    more = [word for word, usual in ((setting.isa, "auto"), (setting.memory, "default")) if word != usual]
    return f" ({', '.join(more)})" if more else ""


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f}" if number >= 50_000 else "0" if number == 0 else f"{number / 1e6:.2f}"
