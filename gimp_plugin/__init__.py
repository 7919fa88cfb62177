"""GIMP 3 plug-in: gi and the standard library only."""
