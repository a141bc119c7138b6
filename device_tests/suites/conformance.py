"""Conformance: every kernel variant against its reference, and every packed model intact, on the device itself."""

from __future__ import annotations

from device_tests.plan import ModelPlan
from device_tests.program_records import CheckRecord, Record
from device_tests.suites.context import Context, Remote
from reports.record import Status

CHECK_TIMEOUT_S = 1800.0
VERIFY_TIMEOUT_S = 600.0


def test_kernels(context: Context, remote: Remote) -> None:
    """Every variant that this CPU can run agrees with its reference, and none is left out."""
    context.doing("checking kernels")
    checked: set[str] = set()

    def show(record: Record) -> None:
        if isinstance(record, CheckRecord):
            checked.add(record.variant)
            _emit(context, record)
            context.doing(f"checked {len(checked)} kernels, {record.variant}")

    answer = remote.program.check(on_record=show, timeout_s=CHECK_TIMEOUT_S)
    available = {variant.variant for variant in remote.program.variants() if variant.available}
    assert available, "klaus-run check --list names no kernel that this device can run"
    forgotten = sorted(available - checked)
    assert not forgotten, f"kernels that can run here were not checked: {', '.join(forgotten)}"
    wrong = [record.variant for record in answer.variants if not record.ok]
    assert not wrong, f"{len(wrong)} of {len(answer.variants)} kernels are wrong: {', '.join(wrong)}"


def _emit(context: Context, record: CheckRecord) -> None:
    relative = record.worst_error / record.bound if record.worst_error is not None and record.bound else None
    context.emit(
        "kernel_cases",
        Status.PASS if record.ok else Status.FAIL,
        subject=record.variant,
        value=record.cases,
        message=record.message or ("" if record.ok else f"{record.failed} of {record.cases} cases failed"),
        attributes={
            "op": record.op,
            "isa": record.isa,
            "failed": record.failed,
            "worst_error": record.worst_error,
            "bound": record.bound,
            "worst_of_bound": relative,
        },
    )


def test_packed_model_is_intact(context: Context, remote: Remote, model: ModelPlan) -> None:
    """Every byte of the packed model is as it was written, seen with the device's eyes."""
    context.doing(f"verifying {model.id}")
    answer = remote.program.verify(remote.packed(model), timeout_s=VERIFY_TIMEOUT_S)
    assert answer.ok, f"{model.packed.name} is damaged on the device: remove it there and deploy again"
    assert answer.file_bytes == model.packed_bytes, f"{answer.file_bytes} bytes, {model.packed_bytes} were sent"
