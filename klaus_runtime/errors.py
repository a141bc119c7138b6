"""The one exception root of this package and its kinds.

Every message names what was asked, what was found and what to do next, in one line.

    KlausError
    ├── InputError       a file, argument or model is malformed or does not fit        (exit code 2)
    ├── CheckError       something was computed and found wrong                        (exit code 1)
    └── SetupError       something this computer needs is missing                      (exit code 3)
"""


class KlausError(Exception):
    """Root of all errors that klaus_runtime raises on purpose."""

    exit_code = 5


class InputError(KlausError):
    """Bad input: the user can mend it."""

    exit_code = 2


class CheckError(KlausError):
    """A check failed."""

    exit_code = 1


class SetupError(KlausError):
    """A tool, library or file that the set-up provides is missing."""

    exit_code = 3
