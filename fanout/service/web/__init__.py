"""The files that the service serves at `/client/`: the web client (`fanout.js`, `worker.js`) and a small page that uses
it.

Plain files without a build step. `routes` hands them out; nothing else in the package looks at them.
"""
