"""Changes that go from cell to cell."""
