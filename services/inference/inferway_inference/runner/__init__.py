"""Runner processes: one version each, beside the front. `process` is the front's end, `serve` the runner's own."""
