"""Faults at random moments, against the real servers and a real `quantlytic serve`.

Run by `python -m quantlytic_tests.faults`.
"""
