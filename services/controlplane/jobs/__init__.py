"""Runs of jobs, their schedules and their workers."""
