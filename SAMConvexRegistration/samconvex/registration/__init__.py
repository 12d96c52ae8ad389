"""register(): the stages of a registration in order, a file each."""
