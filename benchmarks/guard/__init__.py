"""The cost of a delivery in things that can be counted, and so are the same on every machine and under every load.

The production engine, its SQLite storage (inline) and its HTTP/2 client run on the virtual loop of
`fanout_kit.simulation`, against a gateway that accepts everything, and are counted while they deliver. `counting`
counts, `process` is the virtual process, `scenarios` its work, `baseline` the former counts and the verdict, `command`
the command line. Times are never looked at.

`python -m benchmarks guard` and `tests/benchmarks/test_guard.py` import it; nothing else does.
"""
