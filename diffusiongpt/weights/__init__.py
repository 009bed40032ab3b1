"""The weights of modules in memory: layout, copies on devices, and the way between them."""
