"""Questions about what is in production, asked of a Snapshot and the settings."""
