"""In which order, how often and from where units are called."""
