"""The side that imports torch: the fork server, the loop of a rank, and the tasks that it takes."""
