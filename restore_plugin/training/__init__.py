"""How the shipped networks are trained: data, degradations, loop and one recipe a network. Needs the `train` extra."""
