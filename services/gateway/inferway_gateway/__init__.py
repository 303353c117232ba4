"""The gateway: every protocol a caller may speak, one envelope behind them, and the workers behind that."""
