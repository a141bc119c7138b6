"""Reads the command line, runs one command, and makes every outcome an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import sys
import traceback
from collections.abc import Sequence

from klaus_runtime.cli import classify, convert, describe, evaluate, quantize
from klaus_runtime.cli.options import Commands
from klaus_runtime.cli.words import complain
from klaus_runtime.errors import InputError, KlausError

_INTERRUPTED = 130
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 pass, 1 check failed, 2 bad input, 3 set-up, 5 internal error."""
    if sys.stdout is None:  # what Python makes of a closed one
        complain("stdout is closed, so no answer could be given: leave it open, or send it to a file")
        return InputError.exit_code
    options = parser().parse_args(arguments)
    options.said = shlex.join(["klaus", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        code: int | None = options.command(options)
        sys.stdout.flush()
    except KlausError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("klaus: interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()  # whoever read our output has gone
        return 0
    except MemoryError:
        complain("not enough memory for this model or picture: give a smaller one")
        return InputError.exit_code
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            # Files have names, and what fails with them is an InputError already: this was the answer.
            _abandon_stdout()
            complain(f"cannot write the answer to stdout: {error.strerror}; make room, or send it elsewhere")
            return InputError.exit_code
        if os.environ.get("KLAUS_DEBUG"):
            traceback.print_exc()
        complain(f"internal error ({type(error).__name__}: {error}): KLAUS_DEBUG=1 shows where; report it")
        return KlausError.exit_code
    return code or 0


def _abandon_stdout() -> None:
    """What is still in Python's buffer goes nowhere, or it would fail and complain once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    made = argparse.ArgumentParser(prog="klaus", description="Small ImageNet classifiers, on this computer.")
    commands = Commands(made)
    for room in (classify, describe, quantize, convert, evaluate):
        room.register(commands)
    return made
