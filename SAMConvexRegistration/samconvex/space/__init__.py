"""Where things lie and how they move: grids, images, fields and transforms, in LPS millimeters."""
