"""The public test kit, for this project's own tests and for the authors of plugins and the services that embed `fanout`.

`check_transport` and the storage checks hold a plugin to its contract; `ScriptedTransport` and `VirtualClock` stand in for a
gateway and for time; `simulator` is the base of stand-ins that speak a gateway's real protocol over TLS on loopback. It imports
no test framework: a broken law is an `AssertionError` that names it. It may import anything below it; nothing of `fanout` imports it.
"""
