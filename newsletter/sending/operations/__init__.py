"""What an operator does with a send: create, pause, resume, cancel, retry, test emails."""
