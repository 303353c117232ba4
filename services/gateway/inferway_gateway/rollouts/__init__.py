"""What gateways do for rollouts: count what both arms meet, stop harm at once, make copies and compare them."""
