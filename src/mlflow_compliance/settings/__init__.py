"""What is true for one store: compliance.toml."""
