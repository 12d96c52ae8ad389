"""Linear maps between two images, with and without learning."""
