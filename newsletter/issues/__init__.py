"""Issues: files, revisions, review and approval."""
