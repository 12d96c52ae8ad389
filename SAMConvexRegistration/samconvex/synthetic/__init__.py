"""Invented patients, deformations and radiographs whose truth is exact."""
