"""What files prove, computed when a rule first asks."""
