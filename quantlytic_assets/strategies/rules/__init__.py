"""The rules that are there without a plugin, a module a family.

Each module has `SPECS`. An expression reads `BASE_COLUMNS` and the names that its `features` and `inputs` declare.
"""
