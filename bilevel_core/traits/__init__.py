"""What class of problem a problem is: sizes and mathematical properties that decide which solver takes it."""

from bilevel_core.traits.traits import FollowerTraits, Traits, derive_traits

__all__ = ["FollowerTraits", "Traits", "derive_traits"]
