"""The artifact side of a Snapshot: one walk, owners, model folders, duplicates, and what is remembered of them."""
