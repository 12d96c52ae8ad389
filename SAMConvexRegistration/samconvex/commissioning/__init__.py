"""Commissioning: known deformations run through this installation, judged against limits as physicists use them."""
