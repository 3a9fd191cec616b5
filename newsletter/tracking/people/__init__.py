"""History and data of one subscriber."""
