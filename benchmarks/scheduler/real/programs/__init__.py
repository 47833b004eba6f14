"""The programs of the workload, as an agent may write them."""
