"""Methods that are backward passes under another table of rules."""

TABLES: dict[str, dict[str, object]] = {}
