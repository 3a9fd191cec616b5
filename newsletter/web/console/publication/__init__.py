"""Pages about the publication as a whole."""
