"""Tasks, sockets, processes and clocks: carries out what the core decides."""
