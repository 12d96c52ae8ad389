"""From records to tables, statistics and pictures; nothing is measured here."""
