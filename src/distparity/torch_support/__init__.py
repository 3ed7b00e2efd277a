"""What depends on the torch that is installed: its version, precisions, and its private parts."""
