"""The `inferway` command: start everything, publish models, ask them, watch them."""
