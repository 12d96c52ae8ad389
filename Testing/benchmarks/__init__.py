"""Accuracy, time and memory of samconvex against other registration tools."""
