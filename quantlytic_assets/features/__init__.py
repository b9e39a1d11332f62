"""Features of bars: declared once, computed of many bars at once or bar by bar, with the same numbers."""
