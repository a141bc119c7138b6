"""The one exception root of this package and its kinds. Messages: what was asked, what was found, what to do next.

ToolchainError
├── InputError    a target's name, its TOML or a Mach-O file is malformed   (exit code 2)
├── BuildError    a compiler or linker refused the sources                  (exit code 1)
└── SetupError    a compiler is missing on this computer                    (exit code 3)
"""


class ToolchainError(Exception):
    """Root of all errors that toolchains raises on purpose."""

    exit_code = 5


class InputError(ToolchainError):
    """Bad input: the user can mend it."""

    exit_code = 2


class BuildError(ToolchainError):
    """The sources do not compile or link."""

    exit_code = 1


class SetupError(ToolchainError):
    """A tool that this computer lacks; the message ends with the command that installs it."""

    exit_code = 3
