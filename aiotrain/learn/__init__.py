"""PPO: networks, advantages, loss and update."""
