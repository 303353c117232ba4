"""`inferway apply`: documents, what they would change, and the acts that make it so."""
