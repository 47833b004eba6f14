"""Thirteen numeric kernels as a user would write them, in plain Python."""
