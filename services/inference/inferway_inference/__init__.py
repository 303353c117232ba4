"""The inference worker: holds versions in runner processes and executes the predictions that gateways bind to it."""
