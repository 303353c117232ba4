"""What `inferway up` runs: ports, data directory, child processes, their supervisor."""
