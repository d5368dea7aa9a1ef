"""Hyperparameter tuning as a bilevel problem: the leader picks hyperparameters, the follower trains the model.

Nothing lives here yet. The place is for the problems ``hpo/*`` and for ``BilevelSearchCV``, the scikit-learn face.
"""
