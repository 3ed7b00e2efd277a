"""What turns gradients into steps, and keeps state of its own."""
