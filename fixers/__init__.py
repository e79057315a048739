"""The remedies, by what they change. A remedy is tied to its rule by the policy id alone."""
