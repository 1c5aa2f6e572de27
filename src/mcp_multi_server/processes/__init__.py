"""Child processes: starts and watches them, and ends them with everything that they started."""
