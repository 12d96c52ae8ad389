"""What a registration says of itself: figures, document and picture."""
