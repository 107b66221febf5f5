"""The decoder's whole pass as one compiled function, for CPUs with AVX-512. It does not know scheduling or drawing.

`decoder.cpp` is compiled at first use and kept in the user's cache; where that cannot be, the engine runs eagerly.
"""
