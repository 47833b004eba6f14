"""The only way out of a jail: sockets that a broker outside accepts, checks and relays."""
