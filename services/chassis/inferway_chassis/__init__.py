"""What every inferway server process stands on: start, observe, encode errors, drain, stop."""
