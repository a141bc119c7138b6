"""One file = one format of a report."""
