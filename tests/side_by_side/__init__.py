"""`pytest -p tests.side_by_side.plugin --processes N`: files side by side, in processes forked after the collection."""
