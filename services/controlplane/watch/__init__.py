"""Watching resources, and what processes report of them."""
