"""Measurements: one command each, with a table and JSON."""
