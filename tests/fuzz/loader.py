"""The device program's loader and engine as a program of libFuzzer's, and the packed models it begins with."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from klaus_runtime import pack
from klaus_runtime.model import Range
from klaus_runtime.registry import load_model
from tests.kernels import nets
from tests.kernels.library import FLAGS, LIBRARIES, library_sources
from tests.klaus_runtime.golden import TINY, TINY_QUANT
from toolchains import detect
from toolchains.detect import Missing
from toolchains.target import load_targets

SOURCE = Path("tests", "kernels", "loader_coverage.c")


def why_not(folder: Path) -> str:
    """What is missing to build it, "" where nothing is."""
    clang = detect.clang()
    if isinstance(clang, Missing):
        return f"{clang.reason}; {clang.remedy}"
    probe = folder / "probe.c"
    probe.write_text("int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d == 0 && n > 1; }\n")
    argv = [*clang.argv, "-fsanitize=fuzzer,address,undefined", str(probe), "-o", str(folder / "probe")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else "clang has no libFuzzer; sudo apt-get install libclang-rt-19-dev"


def build(root: Path, folder: Path) -> Path:
    """The fuzzer; RuntimeError where it cannot be built."""
    reason = why_not(folder)
    clang = detect.clang()
    if reason or isinstance(clang, Missing):
        raise RuntimeError(reason)
    program = folder / "loader"
    sanitizers = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", "-DKLAUS_ADDRESS_SANITIZER"]
    sources = library_sources(root, detect.toolchain_for(load_targets()["host"]))
    argv = [*clang.argv, *FLAGS, "-O2", *sanitizers, *map(str, sources), str(SOURCE), "-o", str(program), *LIBRARIES]
    subprocess.run(argv, cwd=root, check=True, capture_output=True)
    return program


def write_corpus(folder: Path) -> list[bytes]:
    """folder/corpus: packed models with every operation, codebooks, patches, padding and activation ranges."""
    corpus = folder / "corpus"
    corpus.mkdir()
    made = [nets.every_op(), nets.ends_in_softmax(), nets.scanned(), nets.wide_padding()]
    made.append(load_model(str(TINY / "model-fp32.sqlite3")))
    made += [replace(model, ranges=(Range(-4, 6),) * (1 + len(model.layers))) for model in made]
    for form in ("a-depth8-index", "b-depth4-index", "c-depth4-expanded"):
        pictures = {int(path.stem.split("-")[1]): path for path in (TINY_QUANT / form).glob("layer-*.png")}
        made.append(load_model(str(TINY_QUANT / form / "model.sqlite3"), layers=pictures))
    return [pack.pack(model, corpus / f"{number}").read_bytes() for number, model in enumerate(made)]
