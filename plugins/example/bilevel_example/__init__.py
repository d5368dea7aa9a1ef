"""A plugin of bilevel. Its hooks are in `bilevel_example.plugin`."""
