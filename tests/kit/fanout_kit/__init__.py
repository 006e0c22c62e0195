"""The parts that only this project's own tests and benchmarks use, and no user installs: a source root of its own,
beside `fanout` and not in the wheel.

`simulation` runs engines in virtual time on a virtual disk and network, and plants bugs in them; `faulty` is the
`fanout` program with failpoints; `postgres` starts a PostgreSQL server. Tests and benchmarks import it; it may import
`fanout` and the transports, and these never import it.
"""
