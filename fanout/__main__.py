"""`python -m fanout`: the command line, for where the `fanout` program is not on the path."""

from fanout.cli import main

if __name__ == "__main__":
    main()
