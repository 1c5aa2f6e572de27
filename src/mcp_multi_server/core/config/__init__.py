"""The config: read as people and other hosts write it, checked, and compared with the one before."""
