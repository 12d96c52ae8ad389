"""What is measured: one file a suite, each started by name."""
