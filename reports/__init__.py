"""Records in, pages out: schema, journal, statistics, verdicts, history, formats."""
