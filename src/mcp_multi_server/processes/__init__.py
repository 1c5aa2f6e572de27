"""Child processes: how they start, how they are watched, how they and all they started end."""
