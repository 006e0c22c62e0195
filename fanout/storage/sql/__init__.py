"""The rules of every SQL database, written once: `SqlStorage` and its operations, against the port `sql.db.Db`.

A backend is a driver (`sql.driver.Driver`), which hands each operation a `Db` of its own, and the statements that are
truly its own. This package imports no driver: a driver is handed in.
"""
