"""Float64 NumPy references of the merge methods, written from their published formulas.

One module per method, with the method's name. Every reference works directly on the D-dimensional vectors (no
Gram matrices where the formula has none, no blocking, no threads): slow, short, and independent of the library
under test. `test_methods_reference.py` holds them to the results of the public implementations.
"""
