"""One module for each group of commands: read the arguments, act, show."""
