"""Mean image and mean shape of many images: registered to their common mean in turns, without drift."""
