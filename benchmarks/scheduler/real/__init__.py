"""Schedulers on real executions: a workload recorded on every arm, replayed for each policy, and run live."""
