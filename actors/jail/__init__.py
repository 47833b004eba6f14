"""The jail: what every process-based sandbox shares, one module per mechanism."""
