"""The side that imports torch: the fork server, the loop of a rank, and its tasks."""
