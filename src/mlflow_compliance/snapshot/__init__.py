"""The store as a value."""
