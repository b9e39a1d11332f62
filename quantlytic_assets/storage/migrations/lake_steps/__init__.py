"""The steps of the lake's layout, a module each; their order is `LAKE_STEPS` in `migrations/lake.py`."""
