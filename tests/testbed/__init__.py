"""The test bed: a real stack of real processes, real models, and a proxy that breaks any hop."""
