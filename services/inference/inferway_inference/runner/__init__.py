"""Where models run: in processes (`host`, and `serve` within), or in the front (`inline`); `base` is the interface."""
