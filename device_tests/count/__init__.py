"""Executed instructions of a network's passes: measured, compared with a baseline and with peers, drawn."""
