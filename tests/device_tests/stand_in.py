"""Writes a stand-in for klaus-run: a script that computes with numpy and breaks in ways the real one does not.

The harness's end-to-end tests run the real program; this one is for what only a broken device does.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

_SCRIPT = """#!{python}
import hashlib, json, os, signal, sys, time
sys.path.insert(0, {root!r})
FAULT = {fault!r}

def say(**record):
    sys.stdout.write(json.dumps(record) + "\\n")
    sys.stdout.flush()

def option(name, default=None):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default

def main(command):
    if FAULT.startswith(command + ":"):
        fault = FAULT.partition(":")[2]
        if fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "kill-harness":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(30)
        if fault == "hang":
            time.sleep(600)
        if fault == "hostile":
            sys.stdout.write('{{"record":"\\x1b]0;owned\\x07[bold red]$(reboot)`"}}\\n')
            return 0
        if fault == "hostile-stderr":
            sys.stderr.write("\\x1b]0;owned\\x07[bold red]x[/] <script>\\x00\\n")
            return 5
    if command == "hash":
        for name in sys.argv[2:]:
            if not os.path.exists(name):
                return 2
            data = open(name, "rb").read()
            say(record="hash", file=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        return 0
    if command == "info":
        say(record="info", version="0", target="host", arch="x86_64", cpus=2, core="any", core_class="any",
            midr="0x0", isa=["ref"], format_version=1, page_bytes=4096, memory_bytes=1 << 30)
        if "--plan" in sys.argv:
            from pathlib import Path
            from klaus_runtime.pack import read_packed
            for i, _ in enumerate(read_packed(Path(option("--model"))).layers):
                say(record="step", index=i, layers=[i], op="x", variant=f"x{{'--unfused' in sys.argv}}", isa="ref",
                    dtypes=["f32", "f32"], layout=0, rows=1, cols=1, channels=1, packed_bytes=0, packed_in_file=False,
                    scratch_bytes=0, output_bytes=0)
        return 0
    if command == "check":
        say_variant = dict(variant="klaus_lrn_f32_ref", op="lrn", isa="ref")
        if "--list" in sys.argv:
            say(record="variant", core="any", available=True, **say_variant)
            return 0
        bad = FAULT == "wrong-kernel"
        say(record="check", cases=10, failed=int(bad), worst_error=2e-5 if bad else 1e-7, bound=1e-5, ok=not bad,
            message="\\x1b[31mwrong" if bad else "", **say_variant)
        say(record="summary", passed=int(not bad), failed=int(bad))
        return int(bad)
    if command == "verify":
        size = os.path.getsize(sys.argv[2])
        say(record="verify", model=sys.argv[2], ok=True, file_bytes=size, sha256="0" * 64, layers=1, name="x",
            seeded=False)
        return 0
    import numpy as np
    from pathlib import Path
    from klaus_runtime.pack import read_packed
    from klaus_runtime.evaluate import FastEngine
    from klaus_runtime.reference import NumpyEngine
    model = read_packed(Path(option("--model")))
    name = lambda i: model.labels[i].name if model.labels else ""
    def top(p, k=5):
        return [dict(id=int(i), label=name(i), probability=float(p[i])) for i in np.argsort(-p, kind="stable")[:k]]
    def soft(x):
        e = np.exp(x.astype(float) - x.max())
        return e / e.sum()
    tensor = np.fromfile(option("--input"), "<f4").reshape(model.input_shape) if option("--input") else None
    if command == "activations":
        for i, a in enumerate(NumpyEngine(model).activations(tensor)):
            if FAULT == "wrong-layer" and i == 1:
                a = a * 1.01
            if FAULT == "nearly-right-layer" and i == 1:
                a = a * np.float32(1 + 1.5e-5)
            Path(option("--out"), f"layer-{{i:02d}}.f32").write_bytes(a.astype("<f4").tobytes())
            say(record="activation", layer=i, name=model.layers[i].name, file=f"layer-{{i:02d}}.f32",
                rows=a.shape[0], cols=a.shape[1], channels=a.shape[2])
        return 0
    if command == "bench":
        runs, warm = int(option("--runs")), int(option("--warmup"))
        job = "10-patch" if option("--patches") == "10" else "pass"
        size = os.path.getsize(option("--model"))
        say(record="load", open_ns=1000000, session_ns=2000000, file_bytes=size, session_bytes=4096)
        if tensor is None:
            tensor = np.random.default_rng(0).standard_normal(model.input_shape).astype("f4")
        for i in range(runs + warm):
            t = time.monotonic_ns()
            out = FastEngine(model).logits(tensor[None])[0].ravel()
            counted = dict(instructions=150000000 + i, cycles=100000000) if FAULT == "counts" else {{}}
            say(record="pass", index=i, warmup=i < warm, job=job, ns=time.monotonic_ns() - t, preprocess_ns=1000,
                **counted)
        if option("--logits"):
            Path(option("--logits")).write_bytes(out.astype("<f4").tobytes())
        say(record="memory", peak_resident_bytes=9 << 20, resident_bytes=8 << 20, session_bytes=4096)
        from klaus_runtime.model import Softmax
        p = out if isinstance(model.layers[-1], Softmax) else soft(out)
        say(record="bench", model=model.name, runs=runs, warmup=warm, threads=1, isa="ref", job=job,
            precision=option("--precision"), fused=True,
            seeded=model.provenance.seeded, **dict(counter="perf_event") if FAULT == "counts" else {{}},
            top=top(p))
        return 0
    if command == "classify":
        import struct
        data = open(option("--images"), "rb").read()
        count, at = struct.unpack("<I", data[12:16])[0], 16
        for _ in range(count):
            n, rows, cols = struct.unpack("<3I", data[at:at + 12])
            who = data[at + 12:at + 12 + n].decode()
            at += 12 + n
            picture = np.frombuffer(data, np.uint8, rows * cols * 3, at).reshape(rows, cols, 3)
            at += rows * cols * 3
            p = FastEngine(model).probabilities(picture, patches=int(option("--patches", "1")),
                                                crop=option("--crop", "center"))
            if FAULT == "wrong-answers":
                p = p[::-1]
            say(record="picture", id=who, preprocess_ns=1000, forward_ns=1000, top=top(p))
        return 0
    return 2

sys.exit(main(sys.argv[1]))
"""


def write_stand_in(path: Path, fault: str = "") -> Path:
    """An executable at `path`. fault: COMMAND:die|hang|hostile|hostile-stderr|kill-harness, or counts, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_SCRIPT.format(python=sys.executable, root=str(ROOT), fault=fault))
    path.chmod(0o755)
    return path
