"""The suite in other environments than the one of `make test`.

    python -m tests.environments floors             the lowest version of each library that pyproject.toml allows; a
                                                    smoke suite
    python -m tests.environments pythons [3.13 …]   the whole suite under each other Python that is installed here

`make test-floors` and `make test-pythons` call it. Each environment is a folder `.venv-NAME` beside `.venv`. Without a
package index nothing can be installed: that is said, by the name of what is not run, and is no failure. So is a Python
that is not there.
"""
