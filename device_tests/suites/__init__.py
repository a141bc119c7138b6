"""Suites: what is checked and measured on a device. They see the Device protocol and klaus_runtime, nothing else.

run.py starts them, one pytest subprocess a device (farm.py); they tell it what they find over a pipe (wire.py).
"""
