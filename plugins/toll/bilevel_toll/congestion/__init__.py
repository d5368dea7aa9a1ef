"""Tolls where travel times grow with traffic: user equilibrium, first-best tolls, second-best tolls, network design.

`roads` has the travel times, `graph` cheapest routes, `traffic` who travels, `equilibrium` how they choose,
`sensitivity` how that moves with tolls; what leaders do with it stands beside them. Pricing without congestion lives in
the package above.
"""
