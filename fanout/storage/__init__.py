"""The databases: one package per backend, each behind the contract `fanout.plugin.Storage`, each found by its entry
point.

No other package imports a backend by name; backends import `fanout.plugin`, `fanout.config`, `fanout.core` and
`fanout.errors`, and not one another. The shared parts of backends are pure: they stand in `fanout.core` (`statemap`,
`records`), or in the modules here where they are about common tables (`acceptance`, `chunks`, `book`, `settlements`,
`suspects`, `decisions`, `targets`, `packing`). All pass `fanout.testing.storage.check_storage`.
"""
