"""Agents: the policy, PPO, the games it learns in, shaped rewards."""
