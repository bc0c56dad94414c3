"""What tests share: small models and batches, short runs, claims and mutants; and the scripts beside them."""
