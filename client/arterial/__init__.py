"""Arterial's contracts (`arterial.api`) and a small client for callers."""
