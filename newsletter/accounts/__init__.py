"""Users of the console: roles, passwords, sessions, two-factor codes, audit log."""
