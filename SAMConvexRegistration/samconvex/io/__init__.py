"""Files: images, points and transforms read with checks, results written all at once."""
