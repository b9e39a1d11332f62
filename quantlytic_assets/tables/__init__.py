"""Typed readers of the lake's tables: the only place with SELECTs on them.

A reader takes a dataset or strategy, sessions and symbols as parameters and returns a polars frame of declared columns,
those that are asked for and no others. Writing, and SQL of users, belong elsewhere.
"""
