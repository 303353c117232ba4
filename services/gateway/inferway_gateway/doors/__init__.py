"""The doors: each turns one protocol into asks and predictions back into that protocol, and decides nothing else."""
