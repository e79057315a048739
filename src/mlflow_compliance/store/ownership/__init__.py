"""Whose the folders and files below the artifact roots are, where that is not what a row of this store says."""
