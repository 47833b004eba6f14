"""Policies that learn nothing: to compare with, to fall back to and to test with."""
