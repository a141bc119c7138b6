"""The one exception root of this package and its kinds. Messages: what was asked, what was found, what to do next.

HarnessError
├── InventoryError      devices.toml or an argument is wrong                            (exit code 2)
├── SetupError          qemu, the board's image or another local tool is missing,
│                       or a file cannot be written here                             (exit code 3)
├── DeviceError         a device is absent, refuses us, is full, or died                (exit code 4)
│   ├── HostKeyError    unknown or changed host key, both fingerprints named
│   ├── DeadlineError   a remote call passed its deadline
│   └── NoSpaceError    the device's disk is full
└── ProgramError        klaus-run answered, but not what its contract says              (exit code 1)
"""


class HarnessError(Exception):
    """Root of all errors that device_tests raises on purpose."""

    exit_code = 5


class InventoryError(HarnessError):
    """The inventory or a device's name is wrong: the user can mend it."""

    exit_code = 2


class SetupError(HarnessError):
    """Something on this computer is missing."""

    exit_code = 3


class DeviceError(HarnessError):
    """Infrastructure: a device cannot be reached or used."""

    exit_code = 4


class HostKeyError(DeviceError):
    """The device's host key is unknown or has changed."""


class DeadlineError(DeviceError):
    """A remote call took longer than it may."""


class NoSpaceError(DeviceError):
    """The device has no room left."""


class ProgramError(HarnessError):
    """The device program failed a check or broke its contract."""

    exit_code = 1
