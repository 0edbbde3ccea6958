"""`estiba`: arguments, output, exit codes; what is done, the daemon does."""
