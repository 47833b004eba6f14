"""Portable Python: the programs that every Python arm answers alike, and how to tell."""
