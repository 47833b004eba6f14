"""Choosing the runtime: hard constraints first, then a learned mean and variance."""
