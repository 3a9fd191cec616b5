"""Public pages: sign-up, preferences, unsubscribe, archive."""
