"""One file = one source format that becomes a Model."""
