"""What samples say of a model: success of one and of several, votes, intervals; without a model."""
