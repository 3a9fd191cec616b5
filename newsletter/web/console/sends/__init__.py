"""Pages for sends."""
