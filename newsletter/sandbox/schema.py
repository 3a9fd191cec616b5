"""The tables of the sandbox's one SQLite file."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS request (
    id INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE, at REAL NOT NULL, body TEXT NOT NULL,
    args TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS mail (
    id INTEGER PRIMARY KEY, request_id INTEGER NOT NULL REFERENCES request, number INTEGER NOT NULL,
    email TEXT NOT NULL, part TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'processed');
CREATE INDEX IF NOT EXISTS mail_email ON mail (email);
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY, mail_id INTEGER NOT NULL, due REAL NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL, posted INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS event_due ON event (due) WHERE posted = 0;
CREATE INDEX IF NOT EXISTS event_mail ON event (mail_id);
CREATE TABLE IF NOT EXISTS suppression (
    kind TEXT NOT NULL, email TEXT NOT NULL, reason TEXT NOT NULL, created INTEGER NOT NULL,
    PRIMARY KEY (kind, email)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS suppression_email ON suppression (email);
"""
