"""Other clients on our gateways, with our payload: each used as its own documentation says, at its best. The benchmarks
import them.

A contender remembers nothing and settles nothing; its work is the wire. Contenders of Node run in a process of their
own, from packages that are installed when they are first needed (`node`).
"""
