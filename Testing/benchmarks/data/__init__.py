"""The image pairs that are compared, and what is known of their truth."""
