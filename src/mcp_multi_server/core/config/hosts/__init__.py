"""The files of other hosts: where they keep their servers, and what the keys of their entries mean here."""
