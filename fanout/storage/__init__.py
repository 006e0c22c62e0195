"""The databases: one package per backend, each behind the contract `fanout.plugin.Storage`, each found by its entry point.

Nobody imports a backend by name; backends import `fanout.plugin`, `fanout.config`, `fanout.core` and `fanout.errors`, and not
one another. What two backends share is pure and stands in `fanout.core` (`statemap`, `records`). Both pass
`fanout.testing.storage.check_storage`.
"""
