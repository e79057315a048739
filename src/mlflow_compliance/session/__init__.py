"""What the plugin's hooks do, all on the Audit of a session."""
