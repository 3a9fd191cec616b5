"""The console: pages for users."""
