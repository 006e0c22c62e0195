"""`make mutants`: faults that are planted one at a time, each with the tests that must fail. A plant that no test
notices is a defect.

    python -m tests.mutants                      all of them, in a copy of the tree
    python -m tests.mutants goaway lease          those whose name contains one of the words
    python -m tests.mutants --list                what they are

The plants are data: `plants/` has one module for each part of the program, and a plant is a file, a text in it, what
the text becomes, and the arguments of pytest. `test_plants.py` runs with `make test` and holds each text to occur
exactly once, so that a plant whose code has moved on is mended with the change that moved it. A row of the fault run is
planted with `tests/faults/…` as its test.
"""
