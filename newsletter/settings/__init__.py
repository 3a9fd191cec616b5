"""Settings: the sections, the kinds of values, and how files and the environment are read."""
