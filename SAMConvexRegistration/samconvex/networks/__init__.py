"""Network definitions: plain ``torch.nn`` modules, without weights, files or geometry of their own."""
