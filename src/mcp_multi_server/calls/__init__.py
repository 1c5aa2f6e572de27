"""One request from a client to a server and back: finding the server, the call, what the server asks meanwhile."""
