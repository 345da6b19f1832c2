"""What the device package costs: import, opening, a verification by stages, memory, and a search over a million."""
