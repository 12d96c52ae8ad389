"""Shipped and imported network weights, checked, never unpickled."""
