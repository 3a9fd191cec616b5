"""The database: engine, ORM base, column types, dialect differences, bulk rows, backups."""
