"""`pytest -p tests.side_by_side.plugin --processes N`: files side by side, in processes forked after the collection."""

SIDE_BY_SIDE = ("-p", "tests.side_by_side.plugin", "--processes", "6")
"""What pytest is told for that: much of the time of tests is spent waiting."""
