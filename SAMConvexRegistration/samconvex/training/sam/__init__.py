"""How the anatomical embedding is trained."""
