"""The V8 runtime: one fresh isolate in a pre-forked jailed child per task."""
