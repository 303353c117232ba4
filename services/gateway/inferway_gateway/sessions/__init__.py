"""Sessions: state that streams and sequences carry from item to item."""
