"""Who connects: the socket, who may use it, one session per client, the daemon's own methods."""
