"""Packet programs in the kernel: socket filters and XDP programs over captures, attached to nothing."""
