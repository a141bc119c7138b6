"""Suites: checks that run on a device, seeing only the Device protocol."""
