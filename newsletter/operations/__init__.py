"""What an operator does outside sends, schedules and issues: one function for each operation.

Each function takes ``by``, checks, acts, and writes the audit entry in the transaction of the
session that it gets. The command line and the console parse input and call these functions.
Operations on sends, schedules, issues and imports are in the packages of those.
"""
