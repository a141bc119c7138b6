"""Fuzzes readers for a while: `python -m tests.fuzz.run --seconds 60 png onnx` (no names: all of them).

"loader" is the device program's loader and engine, built with clang 19 for libFuzzer with AddressSanitizer and
UndefinedBehaviorSanitizer (Debian: clang-19, libclang-rt-19-dev); it runs only where it is named.

With atheris installed (`pip install atheris`) inputs are found by coverage; without it, or with --plain, by chance
from the corpus, keeping what is refused for a reason not seen before. Prints one line a reader; exit code 1 on a
finding, whose input is written to the folder --findings (default: build/fuzz).
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
MEMORY_BYTES = 6 << 30
LOADER = "loader"


def main() -> int:
    """Parses the options and fuzzes one reader after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="by chance, without atheris")
    parser.add_argument("--findings", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _atheris(options.readers[0], options)
        return 0
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - atheris must come before what it watches

    unknown = set(options.readers) - {*TARGETS, LOADER}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(TARGETS)}, {LOADER}")
    plain = options.plain or not _has_atheris()
    found = 0
    for name in options.readers or TARGETS:
        if name == LOADER:
            found += _loader(options)
        else:
            found += _plain(name, options) if plain else _with_atheris(name, options)
    return int(bool(found))


def _has_atheris() -> bool:
    return subprocess.run([sys.executable, "-c", "import atheris"], capture_output=True, check=False).returncode == 0


# -------------------------------------------------------------------------------------------------- by coverage


def _with_atheris(name: str, options: argparse.Namespace) -> int:
    """libFuzzer ends its process itself, so each reader has one; 1 where it found something."""
    options.findings.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "tests.fuzz.run", "--inside", name, "--seconds", str(options.seconds)]
    argv += ["--seed", str(options.seed), "--findings", str(options.findings)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return _told(name, done)


def _told(name: str, done: subprocess.CompletedProcess[str]) -> int:
    """Says how a run of libFuzzer went; 1 where it found something."""
    cases = re.findall(r"number_of_executed_units: *(\d+)", done.stderr) or re.findall(r"#(\d+)", done.stderr)[-1:]
    seen = re.findall(r"fuzzed: .*", done.stderr)[-1:]
    _say(
        f"{name}: {int(cases[-1] if cases else 0):,} cases by coverage, {seen[0][8:] if seen else ''}", done.returncode
    )
    if done.returncode:
        sys.stdout.write("".join(f"    {line}\n" for line in done.stderr.splitlines()[-40:]))
    return int(done.returncode != 0)


def _settings(name: str, options: argparse.Namespace, largest: int) -> list[str]:
    """libFuzzer's."""
    settings = [f"-max_total_time={options.seconds}", f"-seed={options.seed + 1}", "-rss_limit_mb=4096"]
    settings += ["-timeout=60", "-print_final_stats=1", f"-max_len={4 * largest}"]
    return [*settings, f"-artifact_prefix={options.findings}/{name}-"]


def _loader(options: argparse.Namespace) -> int:
    from . import loader  # noqa: PLC0415 - needs a compiler, which no other reader does

    options.findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        seeds = loader.write_corpus(Path(work))
        argv = [loader.build(ROOT, Path(work)), *_settings(LOADER, options, max(map(len, seeds)) // 2)]
        done = subprocess.run(
            [*map(str, argv), str(Path(work) / "corpus")],
            env=os.environ | {"ASAN_OPTIONS": "allocator_may_return_null=1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    return _told(LOADER, done)


def _atheris(name: str, options: argparse.Namespace) -> None:
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415

    with atheris.instrument_imports(include=["klaus_runtime.readers", "klaus_runtime.png", "klaus_runtime.pack",
                                             "klaus_runtime.package", "klaus_runtime.shapes"]):  # fmt: skip
        from tests.fuzz import targets  # noqa: PLC0415

    with targets.opened(name) as fuzzed, tempfile.TemporaryDirectory() as work:
        for number, data in enumerate(targets.corpus(name)):
            (Path(work) / str(number)).write_bytes(data)

        def one(data: bytes) -> None:
            fuzzed(data)
            if (fuzzed.accepted + fuzzed.refused) % 1000 == 0:
                sys.stderr.write(f"fuzzed: {fuzzed.accepted:,} accepted, {fuzzed.refused:,} refused\n")

        largest = max(len(data) for data in targets.corpus(name))
        atheris.Setup([sys.argv[0], *_settings(name, options, largest), work], one)
        atheris.Fuzz()


# ---------------------------------------------------------------------------------------------------- by chance


def _plain(name: str, options: argparse.Namespace) -> int:
    from tests.fuzz import targets  # noqa: PLC0415
    from tests.fuzz.guard import FindingError  # noqa: PLC0415

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    rng = np.random.default_rng(options.seed)
    with targets.opened(name) as fuzzed:
        pool = targets.corpus(name)
        reasons: set[str] = set()
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            data = damaged(pool[int(rng.integers(len(pool)))], rng)
            try:
                message = fuzzed(data)
            except FindingError as error:
                options.findings.mkdir(parents=True, exist_ok=True)
                path = options.findings / f"{name}-{abs(hash(data)):x}"
                path.write_bytes(data)
                _say(f"{name}: after {fuzzed.accepted + fuzzed.refused:,} cases: {error}; input in {path}", 1)
                return 1
            reason = re.sub(r"\d+|'[^']*'", "", message)
            if reason not in reasons and len(pool) < 2000:
                reasons.add(reason)
                pool.append(data)
    cases = fuzzed.accepted + fuzzed.refused
    shares = f"{fuzzed.accepted:,} accepted, {len(reasons)} kinds of refusal"
    _say(f"{name}: {cases:,} cases by chance, {shares}", 0)
    return 0


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A copy with a few bytes, numbers or stretches changed, taken out, doubled or moved."""
    made = bytearray(data)
    for _ in range(1 << int(rng.integers(0, 4))):
        size = len(made)
        if not size:
            break
        at, length = int(rng.integers(size)), int(rng.integers(1, 1 + min(64, size)))
        match int(rng.integers(8)):
            case 0:
                made[at] = int(rng.integers(256))
            case 1:
                made[at] ^= 1 << int(rng.integers(8))
            case 2:
                made[at : at + 4] = int(rng.choice(_NUMBERS)).to_bytes(8, "little")[:4]
            case 3:
                made[at : at + 8] = int(rng.choice(_NUMBERS)).to_bytes(8, "big")
            case 4:
                del made[at : at + length]
            case 5:
                made[at:at] = made[at : at + length]
            case 6:
                other = int(rng.integers(size))
                made[at : at + length] = made[other : other + length]
            case _:
                made[at : at + length] = rng.bytes(length)
    made[:1] = bytes([int(rng.integers(2))])
    return bytes(made[: 1 << 20])


_NUMBERS = (0, 1, 127, 128, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1)


def _say(line: str, code: int) -> None:
    sys.stdout.write(f"{'FINDING ' if code else ''}{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
