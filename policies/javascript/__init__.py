"""What can be told of JavaScript without running it."""
