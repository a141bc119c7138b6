"""The on-device test harness: devices, deployment, suites, the farm."""
