"""The fast path: the same numbers as chapters 4 to 10, with less work."""
