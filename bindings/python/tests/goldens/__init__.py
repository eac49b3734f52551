"""Runner that compares the library with the results of the public implementations (`make goldens`)."""
