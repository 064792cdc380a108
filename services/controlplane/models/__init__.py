"""Versions of models: gates, shadow, what is live."""
