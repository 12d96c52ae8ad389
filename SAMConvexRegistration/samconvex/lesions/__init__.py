"""Lesions read, found again in follow-ups, measured and judged."""
