"""The client of the OCI distribution-spec 1.1: blocking code for threads, standard library only."""
