"""Runs an iOS arm64 Mach-O program on this computer: unicorn is its CPU, ios_libc.py its operating system.

A loader (segments, slide, rebases, imports), a stack and one thread. The optional package unicorn (GPL) is imported
only when a machine is made.
"""

from __future__ import annotations

import importlib
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.toolchains.ios_libc import Libc, ProgramExit
from toolchains import dyld
from toolchains.errors import InputError
from toolchains.macho import EXECUTE, PLATFORM_IOS, MachO

PAGE = 0x4000
SLIDE = 0x5_4000  # not 0, so that a missing rebase shows
STUBS, STUB_BYTES = 0x7_0000_0000, 0x10000
STACK, STACK_BYTES = 0x7_1000_0000, 8 << 20  # what iOS gives the main thread is 1 MB; libraries use less
DATA, DATA_BYTES = 0x7_2000_0000, 0x10000
HEAP = 0x8_0000_0000
MAPS = 0x10_0000_0000  # what mmap() gives, each with a hole behind it
RETURN = STUBS + STUB_BYTES - 16  # where main returns to
NOP_RET = struct.pack("<II", 0xD503201F, 0xD65F03C0)
COPROCESSOR_ON = 3 << 20  # CPACR_EL1: floating point and NEON


class MachineError(Exception):
    """The program did what this machine cannot, or crashed; says where."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ended."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float


class IosMachine:
    """One program in one machine. `cpu` is a name of unicorn's 64-bit models: MAX has fp16 and dot products."""

    def __init__(
        self,
        image: MachO,
        *,
        folder: Path,
        cpu: str = "MAX",
        heap_bytes: int = 1 << 30,
        features: frozenset[str] = frozenset(),
    ) -> None:
        """folder: what the program sees as its current directory. features: hw.optional names, or proc_pid_rusage."""
        if image.platform != PLATFORM_IOS or image.file_type != EXECUTE or image.entry is None:
            raise InputError("the emulated machine runs iOS programs only; build target ios")
        self._uc_module: Any = importlib.import_module("unicorn")
        self._arm64: Any = importlib.import_module("unicorn.arm64_const")
        self.image = image
        self.uc: Any = self._uc_module.Uc(self._uc_module.UC_ARCH_ARM64, self._uc_module.UC_MODE_ARM)
        self.uc.ctl_set_cpu_model(getattr(self._arm64, f"UC_CPU_ARM64_{cpu}"))
        self.heap_bytes = heap_bytes
        for start, size in ((STUBS, STUB_BYTES), (STACK, STACK_BYTES), (DATA, DATA_BYTES), (HEAP, heap_bytes)):
            self.uc.mem_map(start, size)
        self._set("CPACR_EL1", COPROCESSOR_ON)
        self.libc = Libc(self, folder=folder, features=features, heap=(HEAP, heap_bytes), data=(DATA, DATA_BYTES))
        self._stubs: dict[int, Callable[[], None]] = {}
        self._stub_by_name: dict[str, int] = {}
        self._failure: BaseException | None = None
        self._next_map = MAPS
        self.executed = 0  # instructions, where that is wanted: it costs time
        self._load()
        if "proc_pid_rusage" in features:
            self.uc.hook_add(self._uc_module.UC_HOOK_BLOCK, self._on_block)
        self.uc.hook_add(self._uc_module.UC_HOOK_CODE, self._on_stub, begin=STUBS, end=STUBS + STUB_BYTES - 1)

    # the loader

    def _load(self) -> None:
        for segment in self.image.segments:
            if segment.protection == 0:  # __PAGEZERO stays unmapped: a null pointer must crash
                continue
            size = -(-segment.size // PAGE) * PAGE
            self.uc.mem_map(segment.address + SLIDE, size, self._permissions(segment.protection))
            content = self.image.data[segment.offset : segment.offset + segment.file_size]
            self.uc.mem_write(segment.address + SLIDE, content)
        for address in dyld.rebases(self.image):
            self.write_u64(address + SLIDE, self.read_u64(address + SLIDE) + SLIDE)
        for bind in dyld.binds(self.image):
            self.write_u64(bind.address + SLIDE, self._import(bind.symbol) + bind.addend)

    def _permissions(self, protection: int) -> int:
        names = {1: "UC_PROT_READ", 2: "UC_PROT_WRITE", 4: "UC_PROT_EXEC"}
        return sum(int(getattr(self._uc_module, name)) for bit, name in names.items() if protection & bit)

    def _import(self, symbol: str) -> int:
        """The address of an imported variable, or of a stub that calls the function."""
        variable = self.libc.variable(symbol)
        if variable is not None:
            return variable
        if symbol not in self._stub_by_name:
            address = STUBS + 16 * len(self._stub_by_name)
            if address >= RETURN:
                raise MachineError("more imports than there is room for")
            self.uc.mem_write(address, NOP_RET)
            self._stub_by_name[symbol] = address
            self._stubs[address] = self.libc.function(symbol)
        return self._stub_by_name[symbol]

    def _on_block(self, _uc: object, _address: int, size: int, _user: object) -> None:
        self.executed += size // 4

    def _on_stub(self, _uc: object, address: int, _size: int, _user: object) -> None:
        handler = self._stubs.get(address)
        if handler is None:
            return
        try:
            handler()
        except BaseException as error:  # it must not unwind through unicorn's C frames
            self._failure = error
            self.uc.emu_stop()

    # registers and memory

    def _register(self, name: str) -> int:
        return int(getattr(self._arm64, f"UC_ARM64_REG_{name}"))

    def get(self, name: str) -> int:
        """A register's value."""
        return int(self.uc.reg_read(self._register(name)))

    def _set(self, name: str, value: int) -> None:
        self.uc.reg_write(self._register(name), value & 0xFFFF_FFFF_FFFF_FFFF)

    def set(self, name: str, value: int) -> None:
        """Sets a register of up to 64 bits."""
        self._set(name, value)

    def argument(self, index: int) -> int:
        """Integer argument 0 .. 7 of the function that was called."""
        return self.get(f"X{index}")

    def float_argument(self, index: int, *, double: bool) -> float:
        """Floating-point argument 0 .. 7."""
        raw = self.get(f"D{index}")
        form, whole = ("<d", raw) if double else ("<f", raw & 0xFFFFFFFF)
        return float(struct.unpack(form, whole.to_bytes(struct.calcsize(form), "little"))[0])

    def return_float(self, value: float, *, double: bool) -> None:
        """Sets the result of a function that returns a float or double."""
        raw = struct.pack("<d" if double else "<f", value)
        self._set("D0", int.from_bytes(raw, "little"))

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the program's memory."""
        return bytes(self.uc.mem_read(address, size)) if size else b""

    def write(self, address: int, data: bytes) -> None:
        """Changes the program's memory."""
        if data:
            self.uc.mem_write(address, data)

    def read_u64(self, address: int) -> int:
        """A pointer's value."""
        return int.from_bytes(self.read(address, 8), "little")

    def write_u64(self, address: int, value: int) -> None:
        """Stores a pointer."""
        self.write(address, (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little"))

    def read_text(self, address: int) -> bytes:
        """A C string without its NUL."""
        text = bytearray()
        while True:
            piece = self.read(address, 64 - address % 64)  # never over the end of a page
            end = piece.find(b"\0")
            if end >= 0:
                return bytes(text + piece[:end])
            text += piece
            address += len(piece)

    def map(self, size: int, protection: int) -> int:
        """New zeroed pages at an address never used before, followed by a hole."""
        address, self._next_map = self._next_map, self._next_map + size + PAGE
        self.uc.mem_map(address, size, self._permissions(protection))
        return address

    def unmap(self, address: int, size: int) -> None:
        """Gives whole pages back."""
        self.uc.mem_unmap(address, size)

    def protect(self, address: int, size: int, protection: int) -> None:
        """mprotect(): whole pages."""
        self.uc.mem_protect(address, size, self._permissions(protection))

    # running

    def run(self, arguments: Sequence[str], *, timeout_seconds: float = 120) -> Finished:
        """Calls main with `arguments` (argv[0] included). Raises MachineError on a crash or at the deadline."""
        pointers = [self.libc.allocate_bytes(word.encode() + b"\0") for word in arguments]
        table = self.libc.allocate_bytes(b"".join(struct.pack("<Q", pointer) for pointer in (*pointers, 0)))
        self._set("X0", len(arguments))
        self._set("X1", table)
        self._set("SP", STACK + STACK_BYTES - 256)
        self._set("LR", RETURN)
        begin = time.monotonic()
        entry = (self.image.entry or 0) + SLIDE
        try:
            self.uc.emu_start(entry, RETURN, timeout=int(timeout_seconds * 1_000_000))
        except self._uc_module.UcError as error:
            if self._failure is None:
                raise MachineError(
                    f"{error} at {self.where()}; stderr: {self.libc.stderr.decode(errors='replace')}"
                ) from error
        seconds = time.monotonic() - begin
        self.libc.close_files()
        if isinstance(self._failure, ProgramExit):
            code = self._failure.code
        elif self._failure is not None:
            raise MachineError(f"{self._failure} at {self.where()}") from self._failure
        elif self.get("PC") == RETURN:
            code = self.get("X0") & 0xFF
        else:
            raise MachineError(f"still running after {timeout_seconds:g} s at {self.where()}")
        return Finished(code, self.libc.stdout.decode(), self.libc.stderr.decode(), seconds)

    def where(self) -> str:
        """The program counter and who called, as addresses of the file."""
        at = self.get("PC")
        name = next((symbol for symbol, stub in self._stub_by_name.items() if stub <= at < stub + 16), "")
        return f"{name or hex(at - SLIDE)}, called from {self.get('LR') - SLIDE:#x}"
