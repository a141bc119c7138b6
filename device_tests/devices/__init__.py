"""Device kinds: one file each, all behind the Device protocol of base.py."""
