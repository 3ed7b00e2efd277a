"""Everything that depends on the installed torch: its version, precisions, and private APIs."""
