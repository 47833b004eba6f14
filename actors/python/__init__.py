"""The Python runtime: pre-forked jailed children of a zygote with the scientific stack preloaded."""
