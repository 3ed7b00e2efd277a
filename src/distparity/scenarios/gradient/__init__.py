"""How gradients accumulate, are clipped, scaled and exchanged."""
