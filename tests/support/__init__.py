"""Real parts for tests: a private daemon, real clients, and a leak check of the host."""
