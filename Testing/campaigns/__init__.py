"""Campaigns that try to break the readers and the commands; long, seeded and resumable."""
