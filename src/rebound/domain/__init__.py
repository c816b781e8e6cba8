"""What a task is and what may become of it: pure functions and immutable types, no I/O."""
