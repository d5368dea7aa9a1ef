"""The parts of `branch-and-cut`: matrices, followers' answers, bilevel-free sets, cuts, branching, and the search."""
