"""The notification service: an ASGI app that runs alone or mounts in another, and what it is made of.

`auth` tells who is calling. It may import everything below it; nothing but the command line imports it.
"""
