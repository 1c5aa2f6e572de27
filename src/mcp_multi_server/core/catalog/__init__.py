"""What one server offers: read from its lists, mended where clients could not read it, kept for the next start."""
