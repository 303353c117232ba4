"""Rollouts for people: what is asked for (`spec`), how one goes (`view`, `watch`), and what became of it (`report`)."""
