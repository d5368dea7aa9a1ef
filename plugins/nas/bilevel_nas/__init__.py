"""Neural architecture search as a bilevel problem: the leader picks the architecture, the follower trains its weights.

Nothing lives here yet. The place is for the problems ``nas/*`` and for the command group ``bilevel nas``.
"""
