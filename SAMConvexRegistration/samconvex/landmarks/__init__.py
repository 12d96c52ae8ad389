"""Points of one image found in others by their embeddings."""
