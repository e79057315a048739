"""Whether a tracking server gives what the store holds."""
