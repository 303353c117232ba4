"""Alembic's folder of schema migrations."""
