"""The naive model of storage: plain dictionaries with the semantics of the databases, and nothing durable.

The model tests compare the databases with it, and the planted faults that show that the laws bite are made of it. It
shares pure decisions with the product (`fanout.storage`, `fanout.core`) and no statement. It is no storage that a user
can choose.
"""
