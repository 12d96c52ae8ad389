"""Deformations: costs of displacements, solvers, and what fields must obey."""
