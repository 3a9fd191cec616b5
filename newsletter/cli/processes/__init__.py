"""Commands that run until they are stopped, and what their processes need."""
