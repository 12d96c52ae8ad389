"""What a registration may be told: frozen, and free of torch, so that command line and panels read it quickly."""
