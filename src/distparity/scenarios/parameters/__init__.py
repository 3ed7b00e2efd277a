"""Which parameters there are: their shapes, who shares them, which are trained."""
