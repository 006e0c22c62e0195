"""The fault run: each row of the reliability table, measured over real processes that are killed, stopped and starved.

    python -m tests.faults [--short] [ROW …]      one line per row; exit 1 if one fails (`make faults` is the long form
    of all) pytest tests/faults [--faults] [-k row_06]    the same rows as tests; the short form runs with `make test`

`table` lists the rows, `rows/` measures them, one module per family. Four parties are apart: `fanout work` in processes
of its own (`nursery`), the gateway with its ledger (`gateway`), the driver (`driver`), which writes an id down only
after `send` has returned, and the auditor (`fanout_kit.faulty.audit`), who joins the three. Failpoints come from
`fanout_kit.faulty`.
"""
