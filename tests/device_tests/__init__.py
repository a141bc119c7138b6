"""Tests of the on-device harness."""
