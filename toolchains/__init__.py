"""Knows compilers: targets, detection, commands, builds. Knows no model and no device."""
