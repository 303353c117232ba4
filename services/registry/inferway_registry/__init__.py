"""The registry: what models there are, where their traffic goes, and who serves them."""
