"""The tiny zoo: five real diffusion models of 64 pixels and their judge, small enough for the package."""
