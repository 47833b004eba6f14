"""How a client handle and a pool actor talk: the same frames over a unix socket or a Ray call."""
