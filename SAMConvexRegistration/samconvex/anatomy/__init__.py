"""What is known of a body: where it is, what of it is missing, its embedding and its organs."""
