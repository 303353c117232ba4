"""Traces of one machine: received by OTLP, kept in SQLite, shown as trees."""
