"""The registry's database: one schema on SQLite and PostgreSQL."""
