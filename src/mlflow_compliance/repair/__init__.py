"""Planning a repair, carrying it out, and its journal."""
