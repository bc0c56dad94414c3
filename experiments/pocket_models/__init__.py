"""How the pocket models are made: `make pocket`, with NAMES or for all of them."""
