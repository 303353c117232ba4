"""The model that `inferway up` shows: handwritten digits, trained, published and asked."""
