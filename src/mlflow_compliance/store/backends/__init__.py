"""What a tracking URI may point to: one interface, one module for each kind of store."""
