"""One audit of a store, without pytest."""
