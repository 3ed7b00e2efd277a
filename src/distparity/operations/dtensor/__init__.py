"""DTensor's operations that training uses, against the same functions of plain tensors."""
