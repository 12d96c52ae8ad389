"""Feature descriptors: vectors of two images that the solvers compare.

Some are cheap and local: they look at the warped image, again at every level. Others come from a network, once for each
image, and are read where points come to lie (feature warping).
"""
