"""`global`: nonconvex followers to proven optimality, by relaxations that points of the follower refine."""
