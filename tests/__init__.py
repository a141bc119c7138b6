"""Host tests, one folder per package."""
