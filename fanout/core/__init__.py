"""The pure part: values, identifiers and decisions of one delivery's life.

Nothing here awaits, reads a clock, draws randomness, does I/O or logs: `now` and `rng` are arguments. Every other
module may import it; it imports only the standard library (and orjson, in `codec`).
"""
