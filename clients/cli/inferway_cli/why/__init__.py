"""`inferway why`: how a version is being served, and why so, for people who have not read the code."""
