"""`sample.*`: the leader sampled, the follower solved to optimality at each point."""
