"""Rollouts: what is wanted (`spec`), where one stands (`rollout`), what is known (`facts`), what next (`machine`)."""
