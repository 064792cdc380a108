"""Declared features: aggregates of events by key in sliding windows of event time, in the online store."""
