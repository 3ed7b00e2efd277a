"""How parameters and buffers come by their first values."""
