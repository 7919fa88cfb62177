"""Methods without a network, one file each."""
