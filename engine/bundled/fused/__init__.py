"""The decoder's whole pass as one function, compiled for AVX-512 or AVX2. It does not know scheduling or drawing.

`decoder.cpp` is compiled at first use and kept in the user's cache; where that cannot be, the engine runs eagerly.
"""
