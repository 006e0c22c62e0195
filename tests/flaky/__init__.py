"""`python -m tests.flaky [--runs N] [--seed N] [WORD …]`: the suite again and again, and every test whose outcome
differs.

    make flaky                                   ten runs of the whole suite
    make flaky FLAKY="--runs 4 tests/core"       fewer runs, of a part; any further words are pytest's

Each run has a random order and a switch interval of its own, from 1 us to 50 ms: how often threads take turns decides
which of two steps comes first. The interval holds in every Python process that the run starts, and a program that sets
its own is overruled. Every other run has two busy processes beside it. `trials` plans and compares, purely; `order` is
the plugin of a run's pytest.
"""
