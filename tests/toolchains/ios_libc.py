"""As much of Apple's C library as the device program imports, on Python: for ios_machine.py.

Handlers are methods named after the C function. Arguments come from registers as the arm64 convention of Apple has it:
integers in x0.., floats in d0.., everything variadic on the stack in slots of 8 bytes. Threads are refused (EAGAIN).
Longer than 400 lines because a C library has many functions; each stands alone.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tests.toolchains.ios_machine import IosMachine

MASK = 0xFFFF_FFFF_FFFF_FFFF
FAILED = MASK  # -1, (void *)-1
PAGE = 0x4000
SC_PAGESIZE, SC_NPROCESSORS_CONF, SC_NPROCESSORS_ONLN = 29, 57, 58
MAP_ANON = 0x1000
# Apple's numbers where they differ from Linux'.
APPLE_ERRNO = {errno.EAGAIN: 35, errno.ENOSYS: 78, errno.ENAMETOOLONG: 63, errno.ELOOP: 62, errno.ENOTEMPTY: 66}
APPLE_OPEN = {0x0004: os.O_NONBLOCK, 0x0008: os.O_APPEND, 0x0200: os.O_CREAT, 0x0400: os.O_TRUNC, 0x0800: os.O_EXCL}
CALLEE_SAVED = ("SP", "LR", "FP", *(f"X{i}" for i in range(19, 29)), *(f"D{i}" for i in range(8, 16)))
_PRINTF = re.compile(
    rb"%(?P<flags>[-+ #0]*)(?P<width>\*|\d+)?(?:\.(?P<precision>\*|\d*))?"
    rb"(?P<length>hh|h|ll|l|z|j|t|L)?(?P<kind>[a-zA-Z%])"
)
_INTEGER = re.compile(rb"[ \t\n\v\f\r]*([-+]?)(0[xX](?=[0-9a-fA-F]))?([0-9a-zA-Z]*)")
_FLOAT = re.compile(rb"[ \t\n\v\f\r]*([-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf(?:inity)?|nan))", re.IGNORECASE)
_FLOAT_FUNCTIONS: dict[str, Callable[..., float]] = {
    "exp": math.exp,
    "log": math.log,
    "log2": math.log2,
    "sqrt": math.sqrt,
    "floor": math.floor,
    "ceil": math.ceil,
    "fabs": math.fabs,
    "pow": math.pow,
    "fmod": math.fmod,
    "fmin": min,
    "fmax": max,
    "round": lambda x: math.copysign(math.floor(abs(x) + 0.5), x),
    "rint": round,
    "nearbyint": round,
    "expm1": math.expm1,
}


class ProgramExit(Exception):
    """The program called exit() or abort()."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit {code}")
        self.code = code


def signed(value: int, bits: int = 64) -> int:
    """Two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


class Libc:
    """State of one process: heap, files, output."""

    def __init__(
        self,
        machine: IosMachine,
        *,
        folder: Path,
        features: frozenset[str],
        heap: tuple[int, int],
        data: tuple[int, int],
    ) -> None:
        self.machine, self.folder, self.features = machine, folder, features
        self.stdout, self.stderr = bytearray(), bytearray()
        self._next, self._end = heap[0], heap[0] + heap[1]
        self._sizes: dict[int, int] = {}
        self._free: dict[int, list[int]] = {}
        self._data_next = data[0]
        self._variables: dict[str, int] = {}
        self._files: dict[int, IO[bytes]] = {}
        self._descriptors: set[int] = set()
        self._jumps: dict[int, dict[str, int]] = {}
        self._errno = self._variable_of(8)
        self._streams = {self._variable_of(16): self.stdout, self._variable_of(16): self.stderr}
        out, err = self._streams
        for symbol, value in (("___stdoutp", out), ("___stderrp", err), ("___stdinp", 0), ("_mach_task_self_", 0x203)):
            self._variables[symbol] = self._variable_of(8, value)
        self._variables["___stack_chk_guard"] = self._variable_of(8, 0x595E_9FBD_94FD_A766)

    # what the loader asks

    def variable(self, symbol: str) -> int | None:
        """Address of an imported variable, None where `symbol` is no variable known here."""
        return self._variables.get(symbol)

    def function(self, symbol: str) -> Callable[[], None]:
        """What a call of `symbol` does; an unknown one fails only when it is called."""
        name = symbol.removeprefix("_")
        plain = name.removesuffix("f")
        if name in _FLOAT_FUNCTIONS or plain in _FLOAT_FUNCTIONS:
            double = name in _FLOAT_FUNCTIONS
            return lambda: self._float(_FLOAT_FUNCTIONS[name if double else plain], double=double)
        handler = getattr(self, f"c_{name}", None)
        if handler is None:
            return lambda: self._unknown(symbol)
        return lambda: self._call(handler)

    def _call(self, handler: Callable[..., int | None]) -> None:
        count = handler.__code__.co_argcount - 1
        result = handler(*(self.machine.argument(i) for i in range(count)))
        if result is not None:
            self.machine.set("X0", result)

    def _float(self, function: Callable[..., float], *, double: bool) -> None:
        two = function in (math.pow, math.fmod, min, max)
        values = [self.machine.float_argument(i, double=double) for i in range(2 if two else 1)]
        try:
            value = float(function(*values))
            if not double:
                value = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            value = math.inf
        except ValueError:
            value = -math.inf if values[0] == 0 else math.nan
        self.machine.return_float(value, double=double)

    def _unknown(self, symbol: str) -> NoReturn:
        raise NotImplementedError(f"the program calls {symbol}, which this machine's C library has not")

    def _variable_of(self, size: int, value: int = 0) -> int:
        address, self._data_next = self._data_next, self._data_next + size
        self.machine.write_u64(address, value)
        return address

    def _fail(self, number: int) -> int:
        self.machine.write(self._errno, struct.pack("<i", APPLE_ERRNO.get(number, number)))
        return FAILED

    # memory

    def allocate(self, size: int, alignment: int = 64) -> int:
        """Memory of `size` bytes, 0 where there is none left. Freed blocks of the same size are used again."""
        rounded = max(64, -(-size // 64) * 64)
        reusable = self._free.get(rounded, [])
        for index, address in enumerate(reusable):
            if address % alignment == 0:
                del reusable[index]
                self._sizes[address] = rounded
                return address
        address = -(-self._next // alignment) * alignment
        if address + rounded > self._end:
            self._fail(errno.ENOMEM)
            return 0
        self._next = address + rounded
        self._sizes[address] = rounded
        return address

    def allocate_bytes(self, content: bytes) -> int:
        """Memory that holds `content`."""
        address = self.allocate(len(content))
        self.machine.write(address, content)
        return address

    def c_malloc(self, size: int) -> int:
        return self.allocate(size)

    def c_calloc(self, count: int, size: int) -> int:
        address = self.allocate(count * size)
        if address:
            self.machine.write(address, bytes(count * size))
        return address

    def c_realloc(self, old: int, size: int) -> int:
        address = self.allocate(size)
        if address and old:
            self.machine.write(address, self.machine.read(old, min(size, self._sizes[old])))
            self.c_free(old)
        return address

    def c_posix_memalign(self, result: int, alignment: int, size: int) -> int:
        address = self.allocate(size, alignment)
        self.machine.write_u64(result, address)
        return 0 if address else errno.ENOMEM

    def c_aligned_alloc(self, alignment: int, size: int) -> int:
        return self.allocate(size, alignment)

    def c_free(self, address: int) -> None:
        if address:
            size = self._sizes.pop(address, None)
            if size is None:
                raise RuntimeError(f"free() of {address:#x}, which is not allocated")
            self._free.setdefault(size, []).append(address)

    def c_mmap(self, _hint: int, size: int, protection: int, flags: int, descriptor: int, offset: int) -> int:
        content = b""
        if not flags & MAP_ANON:
            try:
                content = os.pread(signed(descriptor, 32), size, offset)
            except OSError as error:
                return self._fail(error.errno or errno.EIO)
        if size == 0 or size > self._end:
            return self._fail(errno.EINVAL if size == 0 else errno.ENOMEM)
        address = self.machine.map(-(-size // PAGE) * PAGE, protection & 7)
        self.machine.write(address, content)
        return address

    def c_munmap(self, address: int, size: int) -> int:
        self.machine.unmap(address, -(-size // PAGE) * PAGE)
        return 0

    def c_mprotect(self, address: int, size: int, protection: int) -> int:
        self.machine.protect(address, -(-size // PAGE) * PAGE, protection & 7)
        return 0

    def c_madvise(self) -> int:
        return 0

    def c_memcpy(self, target: int, source: int, size: int) -> int:
        self.machine.write(target, self.machine.read(source, size))
        return target

    c_memmove = c_memcpy

    def c_memset(self, target: int, value: int, size: int) -> int:
        self.machine.write(target, bytes((value & 255,)) * size)
        return target

    def c_bzero(self, target: int, size: int) -> None:
        self.machine.write(target, bytes(size))

    def _pattern(self, target: int, pattern: int, size: int, width: int) -> None:
        self.machine.write(target, (self.machine.read(pattern, width) * (size // width + 1))[:size])

    def c_memset_pattern4(self, target: int, pattern: int, size: int) -> None:
        self._pattern(target, pattern, size, 4)

    def c_memset_pattern8(self, target: int, pattern: int, size: int) -> None:
        self._pattern(target, pattern, size, 8)

    def c_memset_pattern16(self, target: int, pattern: int, size: int) -> None:
        self._pattern(target, pattern, size, 16)

    def c_memcmp(self, a: int, b: int, size: int) -> int:
        return _compare(self.machine.read(a, size), self.machine.read(b, size))

    def c_memchr(self, text: int, byte: int, size: int) -> int:
        at = self.machine.read(text, size).find(bytes((byte & 255,)))
        return text + at if at >= 0 else 0

    # strings

    def c_strlen(self, text: int) -> int:
        return len(self.machine.read_text(text))

    def c_strnlen(self, text: int, most: int) -> int:
        return len(self._bounded(text, most))

    def _bounded(self, text: int, most: int) -> bytes:
        """A string of which at most `most` bytes may be read."""
        found = bytearray()
        while len(found) < most:
            byte = self.machine.read(text + len(found), 1)
            if byte == b"\0":
                break
            found += byte
        return bytes(found)

    def c_strcmp(self, a: int, b: int) -> int:
        return _compare(self.machine.read_text(a) + b"\0", self.machine.read_text(b) + b"\0")

    def c_strncmp(self, a: int, b: int, most: int) -> int:
        return _compare((self._bounded(a, most) + b"\0")[:most], (self._bounded(b, most) + b"\0")[:most])

    def c_strchr(self, text: int, byte: int) -> int:
        at = (self.machine.read_text(text) + b"\0").find(bytes((byte & 255,)))
        return text + at if at >= 0 else 0

    def c_strrchr(self, text: int, byte: int) -> int:
        at = (self.machine.read_text(text) + b"\0").rfind(bytes((byte & 255,)))
        return text + at if at >= 0 else 0

    def c_strstr(self, text: int, part: int) -> int:
        at = self.machine.read_text(text).find(self.machine.read_text(part))
        return text + at if at >= 0 else 0

    def c_strcpy(self, target: int, source: int) -> int:
        self.machine.write(target, self.machine.read_text(source) + b"\0")
        return target

    def c_strncpy(self, target: int, source: int, size: int) -> int:
        self.machine.write(target, self._bounded(source, size).ljust(size, b"\0"))
        return target

    def c_strdup(self, text: int) -> int:
        return self.allocate_bytes(self.machine.read_text(text) + b"\0")

    def c_strerror(self, number: int) -> int:
        back = {apple: linux for linux, apple in APPLE_ERRNO.items()}
        return self.allocate_bytes(os.strerror(back.get(number & 0xFFFFFFFF, number & 0xFFFFFFFF)).encode() + b"\0")

    def _integer(self, text: int, end: int, base: int, low: int, high: int) -> int:
        raw = self.machine.read_text(text)
        match = _INTEGER.match(raw)
        digits = b""
        if match:
            base = base or (16 if match[2] else 8 if match[3].startswith(b"0") else 10)
            alphabet = b"0123456789abcdefghijklmnopqrstuvwxyz"[:base]
            digits = bytes(match[3])
            while digits and any(byte not in alphabet for byte in digits.lower()):
                digits = digits[:-1]
        if end:
            used = match.start(3) + len(digits) if match and digits else 0
            self.machine.write_u64(end, text + used)
        if not match or not digits:
            return 0
        value = int(digits, base) * (-1 if match[1] == b"-" else 1)
        if not low <= value <= high:
            self._fail(errno.ERANGE)
        return max(low, min(high, value))

    def c_strtol(self, text: int, end: int, base: int) -> int:
        return self._integer(text, end, base, -(1 << 63), (1 << 63) - 1)

    c_strtoll = c_strtol

    def c_strtoul(self, text: int, end: int, base: int) -> int:
        return self._integer(text, end, base, -MASK, MASK)

    c_strtoull = c_strtoul

    def c_atoi(self, text: int) -> int:
        return self._integer(text, 0, 10, -(1 << 31), (1 << 31) - 1)

    def c_strtod(self, text: int, end: int) -> None:
        match = _FLOAT.match(self.machine.read_text(text))
        if end:
            self.machine.write_u64(end, text + (match.end() if match else 0))
        self.machine.return_float(float(match[1]) if match else 0.0, double=True)

    def c_strtof(self, text: int, end: int) -> None:
        match = _FLOAT.match(self.machine.read_text(text))
        if end:
            self.machine.write_u64(end, text + (match.end() if match else 0))
        self.machine.return_float(float(match[1]) if match else 0.0, double=False)

    def c_ldexp(self, exponent: int) -> None:
        self.machine.return_float(_scaled(self.machine.float_argument(0, double=True), exponent), double=True)

    def c_ldexpf(self, exponent: int) -> None:
        self.machine.return_float(_scaled(self.machine.float_argument(0, double=False), exponent), double=False)

    # printf and its kin

    def _format(self, form: int, arguments: int) -> bytes:
        """What printf makes of the string at `form` with the slots at `arguments`."""
        at = [arguments]

        def slot() -> int:
            at[0] += 8
            return self.machine.read_u64(at[0] - 8)

        def one(match: re.Match[bytes]) -> bytes:
            kind = match["kind"].decode()
            if kind == "%":
                return b"%"
            width = str(signed(slot(), 32)) if match["width"] == b"*" else (match["width"] or b"").decode()
            precision = match["precision"]
            exact = None if precision is None else signed(slot(), 32) if precision == b"*" else int(precision or b"0")
            flags = match["flags"].decode()
            dotted = "" if exact is None or exact < 0 else f".{exact}"
            length = (match["length"] or b"").decode()
            bits = {"hh": 8, "h": 16, "": 32}.get(length, 64)
            if kind in "di":
                return (f"%{flags}{width}{dotted}d" % signed(slot(), bits)).encode()
            if kind in "uxXo":
                return (
                    f"%{flags}{width}{dotted}{'d' if kind == 'u' else kind}" % (slot() & ((1 << bits) - 1))
                ).encode()
            if kind in "fFeEgG":
                value: float = struct.unpack("<d", struct.pack("<Q", slot()))[0]
                return str(f"%{flags}{width}{dotted}{kind}" % value).encode()
            if kind == "c":
                return bytes((slot() & 255,)).rjust(int(width or 0))
            if kind == "s":
                address = slot()
                text = (
                    self._bounded(address, exact)
                    if exact is not None and exact >= 0
                    else self.machine.read_text(address)
                )
                size = int(width or 0)
                return text.ljust(abs(size)) if "-" in flags or size < 0 else text.rjust(size)
            if kind == "p":
                return f"{slot():#x}".encode()
            raise NotImplementedError(f"printf of %{kind}")

        return _PRINTF.sub(one, self.machine.read_text(form))

    def _variadic(self) -> int:
        return self.machine.get("SP")

    def _emit(self, stream: int, data: bytes) -> int:
        if stream in self._streams:
            self._streams[stream] += data
        elif stream in self._files:
            self._files[stream].write(data)
        else:
            raise RuntimeError(f"writing to {stream:#x}, which is no open file")
        return len(data)

    def c_printf(self, form: int) -> int:
        return self._emit(next(iter(self._streams)), self._format(form, self._variadic()))

    def c_fprintf(self, stream: int, form: int) -> int:
        return self._emit(stream, self._format(form, self._variadic()))

    def c_vfprintf(self, stream: int, form: int, arguments: int) -> int:
        return self._emit(stream, self._format(form, arguments))

    def c_vprintf(self, form: int, arguments: int) -> int:
        return self._emit(next(iter(self._streams)), self._format(form, arguments))

    def _bounded_print(self, target: int, size: int, text: bytes) -> int:
        if size:
            self.machine.write(target, text[: size - 1] + b"\0")
        return len(text)

    def c_snprintf(self, target: int, size: int, form: int) -> int:
        return self._bounded_print(target, size, self._format(form, self._variadic()))

    def c_vsnprintf(self, target: int, size: int, form: int, arguments: int) -> int:
        return self._bounded_print(target, size, self._format(form, arguments))

    def c_puts(self, text: int) -> int:
        return self._emit(next(iter(self._streams)), self.machine.read_text(text) + b"\n")

    def c_fputs(self, text: int, stream: int) -> int:
        return self._emit(stream, self.machine.read_text(text))

    def c_putchar(self, byte: int) -> int:
        return self._emit(next(iter(self._streams)), bytes((byte & 255,))) and byte

    def c_fputc(self, byte: int, stream: int) -> int:
        return self._emit(stream, bytes((byte & 255,))) and byte

    c_putc = c_fputc

    def c_fwrite(self, data: int, size: int, count: int, stream: int) -> int:
        self._emit(stream, self.machine.read(data, size * count))
        return count

    # files

    def _path(self, address: int) -> Path:
        return self.folder / os.fsdecode(self.machine.read_text(address))

    def c_fopen(self, path: int, mode: int) -> int:
        letters = self.machine.read_text(mode).decode().replace("b", "").replace("e", "").replace("x", "") + "b"
        try:
            file = self._path(path).open(letters)
        except OSError as error:
            self._fail(error.errno or errno.EIO)
            return 0
        handle = self._variable_of(16)
        self._files[handle] = file
        return handle

    def c_fclose(self, stream: int) -> int:
        if stream in self._files:
            self._files.pop(stream).close()
        return 0

    def c_fread(self, target: int, size: int, count: int, stream: int) -> int:
        data = self._files[stream].read(size * count)
        self.machine.write(target, data)
        return len(data) // size if size else 0

    def c_fflush(self, stream: int) -> int:
        if stream in self._files:
            self._files[stream].flush()
        return 0

    def c_ferror(self) -> int:
        return 0

    def c_setvbuf(self) -> int:
        return 0

    def c_fileno(self, stream: int) -> int:
        return [*self._streams].index(stream) + 1 if stream in self._streams else self._files[stream].fileno()

    def c_isatty(self) -> int:
        return 0

    def c_open(self, path: int, flags: int) -> int:
        real = flags & 3
        for apple, linux in APPLE_OPEN.items():
            real |= linux if flags & apple else 0
        mode = self.machine.read_u64(self._variadic()) & 0o777 if flags & 0x0200 else 0o600
        try:
            descriptor = os.open(self._path(path), real | os.O_CLOEXEC, mode)
        except OSError as error:
            return self._fail(error.errno or errno.EIO)
        self._descriptors.add(descriptor)
        return descriptor

    def c_close(self, descriptor: int) -> int:
        if descriptor in self._descriptors:
            self._descriptors.remove(descriptor)
            os.close(descriptor)
        return 0

    def c_read(self, descriptor: int, target: int, size: int) -> int:
        try:
            data = os.read(signed(descriptor, 32), size)
        except OSError as error:
            return self._fail(error.errno or errno.EIO)
        self.machine.write(target, data)
        return len(data)

    def c_write(self, descriptor: int, source: int, size: int) -> int:
        data = self.machine.read(source, size)
        if descriptor in (1, 2):
            return self._emit([*self._streams][descriptor - 1], data)
        try:
            return os.write(signed(descriptor, 32), data)
        except OSError as error:
            return self._fail(error.errno or errno.EIO)

    def c_fstat(self, descriptor: int, result: int) -> int:
        return self._stat(signed(descriptor, 32), result)

    def c_stat(self, path: int, result: int) -> int:
        return self._stat(self._path(path), result)

    def _stat(self, place: int | Path, result: int) -> int:
        try:
            facts = place.stat() if isinstance(place, Path) else os.fstat(place)
        except OSError as error:
            return self._fail(error.errno or errno.EIO)
        # struct stat of <sys/stat.h> with 64-bit inodes: mode at 4, inode at 8, size at 96; 144 bytes
        mode = facts.st_mode if stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode) else facts.st_mode & 0xFFFF
        raw = bytearray(144)
        struct.pack_into("<iHHQ", raw, 0, facts.st_dev & 0x7FFFFFFF, mode, 1, facts.st_ino)
        struct.pack_into("<q", raw, 96, facts.st_size)
        self.machine.write(result, bytes(raw))
        return 0

    def c_fchmod(self, descriptor: int, mode: int) -> int:
        os.fchmod(signed(descriptor, 32), mode & 0o777)
        return 0

    def c_fsync(self, descriptor: int) -> int:
        os.fsync(signed(descriptor, 32))
        return 0

    def c_mkdir(self, path: int, mode: int) -> int:
        try:
            self._path(path).mkdir(mode & 0o777)
        except OSError as error:
            return self._fail(error.errno or errno.EIO)
        return 0

    def c_rename(self, old: int, new: int) -> int:
        try:
            self._path(old).rename(self._path(new))
        except OSError as error:
            return self._fail(error.errno or errno.EIO)
        return 0

    def c_unlink(self, path: int) -> int:
        try:
            self._path(path).unlink()
        except OSError as error:
            return self._fail(error.errno or errno.EIO)
        return 0

    def close_files(self) -> None:
        """What the system does when a process ends."""
        for file in self._files.values():
            file.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._files.clear()
        self._descriptors.clear()

    # process, time, threads, signals

    def c_exit(self, code: int) -> NoReturn:
        raise ProgramExit(code & 0xFF)

    c__exit = c_exit

    def c_abort(self) -> NoReturn:
        raise RuntimeError("abort()")

    def c___error(self) -> int:
        return self._errno

    def c_getenv(self) -> int:
        return 0

    def c_getpid(self) -> int:
        return 1

    def c_getpriority(self) -> int:
        return 0

    def c_sysconf(self, name: int) -> int:
        return {SC_PAGESIZE: PAGE, SC_NPROCESSORS_CONF: 1, SC_NPROCESSORS_ONLN: 1}.get(name, FAILED)

    def c_sysctlbyname(self, name: int, value: int, size: int) -> int:
        text = self.machine.read_text(name).decode()
        known = {"hw.memsize": (2 << 30, 8), "hw.ncpu": (1, 4), "hw.logicalcpu": (1, 4), "hw.activecpu": (1, 4)}
        known |= {"hw.physicalcpu": (1, 4), "hw.pagesize": (PAGE, 8)} | dict.fromkeys(self.features, (1, 4))
        if text not in known:
            return self._fail(errno.ENOENT)
        number, width = known[text]
        if value:
            self.machine.write(value, number.to_bytes(width, "little"))
        if size:
            self.machine.write_u64(size, width)
        return 0

    def c_task_info(self, _task: int, _flavour: int, result: int, count: int) -> int:
        words = struct.unpack("<I", self.machine.read(count, 4))[0]
        used = self._next % (1 << 32)
        figures = struct.pack("<QQQ", used, used, used)  # mach_task_basic_info begins so
        self.machine.write(result, figures.ljust(4 * words, b"\0")[: 4 * words])
        return 0

    def c_proc_pid_rusage(self, _process: int, flavour: int, result: int) -> int:
        """Flavour 4, which counts, is there where `features` names it: old systems refuse it."""
        if flavour != 4 or "proc_pid_rusage" not in self.features:
            return self._fail(errno.EINVAL)
        executed = self.machine.executed
        figures = bytearray(296)  # struct rusage_info_v4; every instruction of this CPU takes two cycles
        struct.pack_into("<QQ", figures, 248, executed, 2 * executed)
        self.machine.write(result, bytes(figures))
        return 0

    def c_getrusage(self, _who: int, result: int) -> int:
        raw = bytearray(144)
        struct.pack_into("<q", raw, 32, self._next % (1 << 32))
        self.machine.write(result, bytes(raw))
        return 0

    def c_clock_gettime(self, _clock: int, result: int) -> int:
        now = time.monotonic_ns()
        self.machine.write(result, struct.pack("<qq", now // 1_000_000_000, now % 1_000_000_000))
        return 0

    def c_mach_absolute_time(self) -> int:
        return time.monotonic_ns()

    def c_time(self, result: int) -> int:
        now = int(time.time())
        if result:
            self.machine.write_u64(result, now)
        return now

    def c_nanosleep(self) -> int:
        return 0

    c_usleep = c_nanosleep
    c_sched_yield = c_nanosleep
    c_pthread_mutex_init = c_nanosleep
    c_pthread_mutex_lock = c_nanosleep
    c_pthread_mutex_unlock = c_nanosleep
    c_pthread_mutex_destroy = c_nanosleep
    c_pthread_cond_init = c_nanosleep
    c_pthread_cond_signal = c_nanosleep
    c_pthread_cond_broadcast = c_nanosleep
    c_pthread_cond_destroy = c_nanosleep
    c_pthread_attr_init = c_nanosleep
    c_pthread_attr_destroy = c_nanosleep
    c_pthread_attr_setstacksize = c_nanosleep
    c_pthread_setname_np = c_nanosleep
    c_pthread_set_qos_class_self_np = c_nanosleep
    c_sigaction = c_nanosleep  # a crash ends the machine with a message instead
    c_sigemptyset = c_nanosleep
    c_sigaddset = c_nanosleep
    c_sigprocmask = c_nanosleep
    c_signal = c_nanosleep
    c_atexit = c_nanosleep

    def c_pthread_self(self) -> int:
        return 1

    def c_pthread_create(self) -> int:
        return APPLE_ERRNO[errno.EAGAIN]

    def c_pthread_cond_wait(self) -> NoReturn:
        raise RuntimeError("the only thread waits for another one")

    def c_pthread_once(self, control: int, function: int) -> None:
        """Jumps to `function`, which returns to our caller; its result is taken for 0."""
        if self.machine.read_u64(control + 8) == 0:
            self.machine.write_u64(control + 8, 1)
            self.machine.set("PC", function)
        else:
            self.machine.set("X0", 0)

    def c_sigsetjmp(self, buffer: int) -> int:
        self._jumps[buffer] = {name: self.machine.get(name) for name in CALLEE_SAVED}
        return 0

    c_setjmp = c_sigsetjmp
    c__setjmp = c_sigsetjmp

    def c_siglongjmp(self, buffer: int, value: int) -> None:
        saved = self._jumps[buffer]
        for name, old in saved.items():
            self.machine.set(name, old)
        self.machine.set("X0", value or 1)
        self.machine.set("PC", saved["LR"])

    c_longjmp = c_siglongjmp
    c__longjmp = c_siglongjmp


def _scaled(value: float, exponent: int) -> float:
    """value * 2^exponent, infinite where that is too large."""
    try:
        return math.ldexp(value, signed(exponent, 32))
    except OverflowError:
        return math.copysign(math.inf, value)


def _compare(a: bytes, b: bytes) -> int:
    """memcmp's and, of strings with their NUL, strcmp's answer."""
    return next(((left - right) & 0xFFFFFFFF for left, right in zip(a, b, strict=False) if left != right), 0)
