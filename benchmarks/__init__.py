"""Measurements against named peers. Nothing of the packages imports this."""
