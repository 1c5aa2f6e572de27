"""What makes the documentation: the picture of a terminal, and the site's way to files outside of docs/."""
