"""Objectives: measured by the verdicts that are reported."""
