"""Measurements anybody can run again; see README.md beside this."""
