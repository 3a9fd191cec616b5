"""Commands that set up and maintain the service."""
