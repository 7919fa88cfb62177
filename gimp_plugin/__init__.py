"""GIMP 3 plug-in: gi and the standard library only. `restore-plugin install-gimp` copies it into GIMP's profiles."""

VERSION = "0.1.0"
