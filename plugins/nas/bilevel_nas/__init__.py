"""Neural architecture search as a bilevel problem: the leader picks the architecture, the follower trains its weights.

Search spaces are in `spaces`, the problem in `problem`, its relaxed form in `oracle`, the solver `supernet` in `solver`
and `steps`, its variants in `parts` and `presets`, tables in the place of training in `table`.
"""
