"""Takes in provider events: attribution, policy, bounces, bots."""
