"""Policies to compare with, to fall back to and to test with; one algorithm a file."""
